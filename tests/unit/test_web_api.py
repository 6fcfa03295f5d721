"""The JSON twins keep what their OpenAPI file says, whatever they are asked."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.specs.openapi.checks import positive_data_acceptance

from batchq.progress import RunState
from batchq.web.actions import ACTIONS
from batchq.web.app import PAGES

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:schemathesis"),
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning"),
]
RUNS = ("words@v0", "words", "words@latest", "words@v1", "")  # the last: whatever comes
FEW = hypothesis.settings(
    max_examples=4,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def ask(operation: Any, base: str) -> set[int]:
    """Sends what fits the description of an operation; returns the statuses that came."""
    names, statuses = itertools.cycle(RUNS), set()

    @FEW
    @hypothesis.given(case=operation.as_strategy())
    def answers_as_described(case: Any) -> None:
        if "run" in case.path_parameters:
            case.path_parameters["run"] = next(names) or case.path_parameters["run"]
        response = case.call(base_url=base, timeout=30)
        # What fits the description may still be no label, or name a run that there is none of.
        case.validate_response(response, excluded_checks=[positive_data_acceptance])
        statuses.add(response.status_code)

    answers_as_described()
    return statuses


def test_every_operation_answers_as_it_is_described(world: Any, serve: Any, redis_url: str) -> None:
    world.version({"a": {"x": 1}, "b": ValueError("b is 7"), "c": KeyError("no")}, notes="n")
    world.version({"a": {"x": 2}, "b": 1, "c": ValueError("c is 8")}, state=RunState.PAUSED)
    pages = serve(world.settings.model_copy(update={"broker_url": redis_url}))
    described = pages.get("/api/batchq/openapi.json").json()
    schema = schemathesis.openapi.from_dict(described)

    found = {
        operation.label: ask(operation, f"{pages.url}/api/batchq")
        for operation in (one.ok() for one in schema.get_all_operations())
    }

    assert len(found) == len(PAGES) + len(ACTIONS) + 1
    for label, statuses in found.items():
        assert 500 not in statuses
        is_read = label.startswith("GET") and not label.endswith("/item")  # whose id is by chance
        assert 200 in statuses or not is_read, label


def test_what_is_read_fits_its_description_word_by_word(world: Any, serve: Any) -> None:
    world.version({"a": {"x": 1}, "b": ValueError("b is 7"), "c": KeyError("no")}, notes="n")
    world.version({"a": {"x": 2}, "b": 1, "c": ValueError("c is 8")})
    pages = serve()
    pages.post("/runs/words@v1/do/mark", id="a", verdict="bad", note="odd")
    schema = schemathesis.openapi.from_dict(pages.get("/api/batchq/openapi.json").json())
    run = "/runs/{run}"
    paths = {
        "/runs": "/runs",
        run: "/runs/words@v1",
        f"{run}/items": "/runs/words@v1/items",
        f"{run}/item": "/runs/words@v1/item?id=a",
        f"{run}/failures": "/runs/words@v1/failures",
        "/compare": "/compare?pipeline=words",
        "/limits": "/limits",
    }

    for described, path in paths.items():
        answer = pages.get(f"/api/batchq{path}")
        assert answer.status_code == 200
        schema[described]["get"].validate_response(answer)
        again = pages.get(f"/api/batchq{path}", headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304
