from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from batchq.endpoint import Limits, Prices, ProviderSpec
from batchq.plan import (
    InputSpec,
    OutputSpec,
    Pacing,
    RetryPolicy,
    StageSpec,
    StepPlan,
    StepSpec,
    Tolerance,
)
from batchq.planning.changes import selection_changes, short_hash, work_changes

PROVIDER = ProviderSpec("p", "openai", "http://one/v1/", "m")
STAGE = StageSpec(
    "", "prompt", prompt="Tell {x}", system="Be kind", provider=PROVIDER, options={"t": 0, "n": 1}
)
TASK = StageSpec("", "task", task="m:f")


def step(*stages: StageSpec, **about: Any) -> StepPlan:
    spec = {key: about.pop(key) for key in ("params", "retry", "timeout_s") if key in about}
    return StepPlan(
        spec=StepSpec(1, "s", stages, **spec), input=about.pop("input", InputSpec("x")),
        output=OutputSpec("s.json"), pacing=Pacing(), queue="llm", needs=about.pop("needs", ()),
        tolerance=Tolerance(), items=1, items_are_estimated=False, batches=1, calls=0,
        input_tokens=0, output_tokens=0, cost_usd=None, duration_s=1.0, bound_by="cpu",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": "Say {x}"}, "prompt changed "),
        ({"system": ""}, "system prompt changed "),
        ({"output_schema": {"type": "object"}}, "output_schema changed "),
        ({"prompt_is_jinja": True}, "prompt changed its template language"),
        ({"when": "x > 1"}, "condition changed always -> x > 1"),
        ({"options": {"t": 1, "top": 2}}, "options changed: n 1 -> none, t 0 -> 1, top none -> 2"),
        ({"provider": replace(PROVIDER, model="m2")}, "model changed m -> m2"),
        (
            {"provider": replace(PROVIDER, name="q", base_url="http://two")},
            "provider changed p -> q",
        ),
        (
            {"provider": replace(PROVIDER, simulator={"seed": 2})},
            "simulator changed: seed none -> 2",
        ),
        ({"kind": "task", "task": "m:f"}, "a prompt became a task"),
    ],
)
def test_what_would_give_other_outputs_is_named(change: dict[str, Any], words: str) -> None:
    (found,) = work_changes(step(STAGE), step(replace(STAGE, **change)))

    assert found.startswith(words)


def test_a_changed_text_is_shown_by_the_hashes_that_people_compare() -> None:
    (found,) = work_changes(step(STAGE), step(replace(STAGE, prompt="Say {x}")))

    assert found == f"prompt changed {short_hash('Tell {x}')} -> {short_hash('Say {x}')}"


@pytest.mark.parametrize(
    "same",
    [
        step(replace(STAGE, provider=replace(PROVIDER, base_url="http://one/v1", priority=2.0))),
        step(replace(STAGE, provider=replace(PROVIDER, limits=Limits(concurrency=9)))),
        step(replace(STAGE, provider=replace(PROVIDER, prices=Prices(1, 2), timeout_s=1))),
        step(replace(STAGE, prompt_file="other/place.md")),
        step(STAGE, retry=RetryPolicy(max_retries=9), timeout_s=1),
        step(STAGE, params={"of": "no function"}),
    ],
)
def test_what_gives_the_same_outputs_is_no_change(same: StepPlan) -> None:
    assert work_changes(step(STAGE), same) == []


def test_a_simulator_that_was_started_is_the_same_wherever_it_listens() -> None:
    started = replace(PROVIDER, is_started=True)
    before, now = (
        step(replace(STAGE, provider=replace(started, base_url=f"http://127.0.0.1:{port}")))
        for port in (4001, 4002)
    )

    assert work_changes(before, now) == []


def test_params_count_for_functions_alone() -> None:
    assert work_changes(step(TASK, params={"a": 1, "b": 2}), step(TASK, params={"a": 2})) == [
        "params changed: a, b"
    ]


def test_other_stages_are_one_change_and_a_stage_is_named() -> None:
    two = (replace(STAGE, name="ask"), replace(TASK, name="sum"))
    changed = (two[0], replace(two[1], task="m:g"))

    assert work_changes(step(STAGE), step(*two)) == ["stages changed"]
    assert work_changes(step(*two), step(*changed)) == ["stage sum: task changed m:f -> m:g"]


@pytest.mark.parametrize(
    ("now", "differs"),
    [
        (InputSpec("y", written="run:words@latest"), False),
        (InputSpec("x", only=("a",)), True),
        (InputSpec("x", id_field="id"), True),
    ],
)
def test_a_selection_is_the_same_wherever_its_file_is(now: InputSpec, differs: bool) -> None:
    assert selection_changes(step(STAGE), step(STAGE, input=now)) is differs


def test_other_steps_to_wait_for_are_another_selection() -> None:
    assert selection_changes(step(STAGE, needs=("a",)), step(STAGE, needs=("b",)))
