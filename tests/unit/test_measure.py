from __future__ import annotations

import math
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from batchq.engine.context import TaskContext
from batchq.engine.functions import call_task
from batchq.engine.measure import Meter, numbers_in
from batchq.errors import TaskError
from batchq.outcome import Measured
from batchq.plan import Item, StageSpec, Stats, StepSpec
from batchq.ports import ItemRef

TASKS = """
    def gives(item):
        if item == "fails":
            raise ValueError("no")
        return {"nodes": 3, "deep": {"score": 0.5}, "name": "x", "ok": True}

    def judges(output, params):
        if params.get("bad"):
            raise KeyError("gone")
        return {"twice": output["nodes"] * 2, "lost": float("nan")}

    def diverges(item):
        class Array:
            def tolist(self):
                return [1, 2]
        loss = {"loss": float("inf"), "epoch": 3}
        return {"loss": float("nan"), "best": loss, "curve": Array()}

    def gives_a_function(item):
        return {"model": lambda x: x}

    def gives_itself(item):
        value = {}
        value["self"] = value
        return value
"""


@pytest.fixture(autouse=True)
def tasks(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "measured_tasks.py").write_text(textwrap.dedent(TASKS))
    sys.path.insert(0, str(tmp_path))
    yield
    sys.path.remove(str(tmp_path))
    sys.modules.pop("measured_tasks", None)


def measured(stats: Stats | None, data: object = None, **params: object) -> Measured | None:
    stage = StageSpec("", "task", task="measured_tasks:gives")
    step = StepSpec(1, "s", (stage,), params=params, stats=stats)
    context = TaskContext(ItemRef("r", 1, 0, 0), "s", "job", 1, params=params)
    with suppress(TaskError):
        call_task(stage, Item("job", 0, data), step, context, ["measured_tasks"])
    return context.measured


def test_the_numbers_of_an_output_are_its_metrics() -> None:
    found = measured(Stats())

    assert found is not None
    assert found.metrics == {"nodes": 3, "deep__score": 0.5}
    assert found.output_bytes == len(
        '{"nodes": 3, "deep": {"score": 0.5}, "name": "x", "ok": true}'
    )


def test_some_metrics_are_taken_by_name() -> None:
    found = measured(Stats(only=("deep__score",)))

    assert found is not None
    assert found.metrics == {"deep__score": 0.5}


def test_a_function_makes_metrics_and_nan_is_none() -> None:
    found = measured(Stats(function="measured_tasks:judges"))

    assert found is not None
    assert found.metrics == {"twice": 6, "lost": None}


def test_a_function_of_metrics_that_fails_does_not_fail_the_job() -> None:
    found = measured(Stats(function="measured_tasks:judges"), bad=True)

    assert found is not None
    assert (found.metrics, found.problem) == ({}, "measured_tasks:judges: KeyError: 'gone'")


def test_a_job_whose_metric_is_nan_is_kept_with_null_in_its_place() -> None:
    stage = StageSpec("", "task", task="measured_tasks:diverges")
    step = StepSpec(1, "s", (stage,), stats=Stats())
    context = TaskContext(ItemRef("r", 1, 0, 0), "s", "job", 1)

    output = call_task(stage, Item("job", 0, None), step, context, ["measured_tasks"])

    assert output == {"loss": None, "best": {"loss": None, "epoch": 3}, "curve": [1, 2]}
    assert context.measured is not None
    assert context.measured.metrics == {"loss": None, "best__loss": None, "best__epoch": 3}


def test_without_stats_nan_is_no_output() -> None:
    stage = StageSpec("", "task", task="measured_tasks:diverges")
    context = TaskContext(ItemRef("r", 1, 0, 0), "s", "job", 1)

    with pytest.raises(TaskError, match="not JSON compliant"):
        call_task(stage, Item("job", 0, None), StepSpec(1, "s", (stage,)), context, ["*"])


@pytest.mark.parametrize("name", ["gives_a_function", "gives_itself"])
def test_what_cannot_be_sent_on_is_told_with_its_type(name: str) -> None:
    stage = StageSpec("", "task", task=f"measured_tasks:{name}")
    step = StepSpec(1, "s", (stage,), stats=Stats())
    context = TaskContext(ItemRef("r", 1, 0, 0), "s", "job", 1)

    with pytest.raises(TaskError, match=f"{name} returned something that is not JSON") as caught:
        call_task(stage, Item("job", 0, None), step, context, ["measured_tasks"])

    assert caught.value.kind == "not_serializable"


def test_a_job_that_fails_is_measured_too() -> None:
    found = measured(Stats(), "fails")

    assert found is not None
    assert found.peak_bytes > 2**20
    assert found.metrics == {}


def test_what_is_not_to_be_measured_is_not() -> None:
    assert measured(None) is None


def test_a_meter_sees_cpu_and_memory_of_the_block_and_its_children() -> None:
    with Meter() as idle:
        pass
    with Meter() as busy:
        block = bytearray(80 * 2**20)
        sum(range(2_000_000))
        del block
    with Meter() as calm:
        pass
    # The kernel tells of the largest child ever: this one has to be larger.
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    script = f"x = bytearray({largest + 50 * 2**20}); print(len(x))"
    with Meter() as parent:
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)

    assert busy.cpu_s > idle.cpu_s
    assert busy.peak_bytes > idle.peak_bytes + 60 * 2**20
    assert calm.peak_bytes < busy.peak_bytes - 60 * 2**20
    assert parent.peak_bytes > largest + 40 * 2**20
    assert parent.cpu_s > 0


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        (4, {"value": 4}),
        ({"a": math.inf, "b": "1", "c": [1]}, {"a": None}),
        ([1, 2], {}),
        ({"item": 3}, {"item": 3}),
    ],
)
def test_numbers_are_found_by_name(value: object, numbers: object) -> None:
    assert numbers_in(value) == numbers
