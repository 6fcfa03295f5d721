"""What of a plan is taken over from the version before, item by item, on a real folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchq.expand import Experiment, Matrix
from batchq.outcome import ItemError, Json, Outcome, State
from batchq.plan import (
    InputSpec,
    Item,
    OutputSpec,
    Pacing,
    Plan,
    Redo,
    StageSpec,
    StepPlan,
    StepSpec,
    Tolerance,
)
from batchq.planning.planner import iter_items
from batchq.progress import RunState
from batchq.records import RunRecord
from batchq.runs.places import placed_items
from batchq.runs.reuse import Because, Review, review_plan, scaled_plan
from batchq.runs.versions import Version, open_version
from batchq.store import Outputs

OUTPUT = OutputSpec("out.json")
ROWS = [{"id": name, "n": n} for n, name in enumerate("abcde")]


def step(number: int, name: str, **about: Any) -> StepPlan:
    task = about.pop("task", "m:f")
    return StepPlan(
        spec=StepSpec(number, name, (StageSpec("", "task", task=task),)),
        input=about.pop("input", InputSpec("rows.json", id_field="id")), output=OUTPUT,
        pacing=Pacing(batch_size=2), queue="cpu", needs=about.pop("needs", ()),
        tolerance=Tolerance(), items=5, items_are_estimated=False, batches=3, calls=10,
        input_tokens=100, output_tokens=50, cost_usd=1.0, duration_s=5.0, bound_by="cpu",
        skip_existing=about.pop("skip_existing", "newest"),
    )  # fmt: skip


def plan_of(folder: Path, *steps: StepPlan) -> Plan:
    return Plan(
        name="p", pipeline="p", labels={}, status="draft", notes="", output_dir="outputs",
        manifest_path="", base_dir=str(folder), params={}, steps=steps, hashes={},
    )  # fmt: skip


FIRST = step(1, "one")
SECOND = step(2, "two", input=InputSpec(), needs=("one",))
WHOLE = step(3, "all", input=InputSpec(whole=True), needs=("two",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    return tmp_path


def ended(name: str, index: int, *, failed: bool = False) -> Outcome:
    error = ItemError("timeout", "too slow") if failed else None
    state = State.FAILED if failed else State.OK
    return Outcome(name, index, state, None if failed else {"n": index}, error)


@pytest.fixture
def base(folder: Path) -> Version:
    """v0: of five items d failed, and e has not ended; the second step lacks c as well."""
    made = Outputs(str(folder / "outputs")).create_version("p")
    plan = plan_of(folder, FIRST, SECOND)
    record = RunRecord("r", "p", "v0", RunState.COMPLETED, "draft", "", "initial", "", "", "")
    made.write_plan(plan)
    made.write_metadata(record, plan, {})
    made.freeze_items(1, iter(Item(row["id"], n, row) for n, row in enumerate(ROWS)))
    made.write_batch(1, 0, [ended("a", 0), ended("b", 1)], OUTPUT)
    made.write_batch(1, 1, [ended("c", 2), ended("d", 3, failed=True)], OUTPUT)
    made.freeze_items(2, iter(Item(str(n), n, {}) for n in range(3)))
    made.write_batch(2, 0, [ended("0", 0), ended("1", 1)], OUTPUT)
    return open_version("p", "v0", made.url)


def told(review: Review, number: int) -> dict[str, Because]:
    return {one.item_id: one.because for one in review.steps[number - 1].decisions}


def test_what_has_an_output_is_taken_over_and_the_rest_runs_with_its_reason(
    folder: Path, base: Version
) -> None:
    review = review_plan(plan_of(folder, FIRST, SECOND), base)

    assert told(review, 1) == {
        "a": Because.TAKEN_OVER,
        "b": Because.TAKEN_OVER,
        "c": Because.TAKEN_OVER,
        "d": Because.FAILED,
        "e": Because.UNFINISHED,
    }
    assert told(review, 2) == {
        "0": Because.TAKEN_OVER,
        "1": Because.TAKEN_OVER,
        "2": Because.UNFINISHED,
        "d": Because.BEFORE,
        "e": Because.BEFORE,
    }
    assert [one.redo for one in review.steps] == [Redo("some", 1), Redo("some", 2)]
    assert review.takes_over
    assert not review.is_idle
    reasons = [one.reason for one in review.steps[0].decisions]
    assert reasons[2:4] == ["taken over from v0", "failed in v0: timeout"]


def test_changed_data_a_new_place_and_a_new_item_are_told_apart(
    folder: Path, base: Version
) -> None:
    rows = [ROWS[1], {"id": "b", "n": 99}, ROWS[2], {"id": "new", "n": 0}]
    rows[0] = {"id": "c", "n": 0}  # which was third
    rows[2] = {"id": "f", "n": 1}
    (folder / "rows.json").write_text(json.dumps(rows))

    review = review_plan(plan_of(folder, FIRST), base)
    fitting = review_plan(plan_of(folder, FIRST, SECOND), base)

    assert set(told(review, 1).values()) == {Because.NEW}  # v0 has other steps
    assert told(fitting, 1) == {
        "c": Because.INPUT,
        "b": Because.INPUT,
        "f": Because.NEW,
        "new": Because.NEW,
    }
    assert fitting.steps[0].decisions[0].reason == "its place changed 2 -> 0"


def test_an_input_with_fewer_items_takes_over_those_that_are_left(
    folder: Path, base: Version
) -> None:
    (folder / "rows.json").write_text(json.dumps(ROWS[:2]))

    review = review_plan(plan_of(folder, FIRST, SECOND), base)

    assert [one.redo.kind for one in review.steps] == ["none", "none"]
    assert [one.kept for one in review.steps] == [((0, 2),), ((0, 2),)]
    assert not review.is_idle  # the collated file has fewer rows


def test_changed_work_runs_again_and_so_does_what_reads_it(folder: Path, base: Version) -> None:
    other = replace(step(1, "one", task="m:g"))

    review = review_plan(plan_of(folder, other, SECOND), base)

    assert set(told(review, 1).values()) == {Because.WORK}
    assert [one.redo.kind for one in review.steps] == ["all", "all"]
    assert review.steps[1].unknown == 5
    assert not review.takes_over


def test_without_the_key_what_is_the_same_runs_again(folder: Path, base: Version) -> None:
    review = review_plan(plan_of(folder, replace(FIRST, skip_existing=""), SECOND), base)

    assert told(review, 1)["a"] is Because.AGAIN
    assert review.steps[0].redo.kind == "all"


def test_a_step_that_sees_everything_runs_again_if_anything_before_it_does(
    folder: Path, base: Version
) -> None:
    plan = plan_of(folder, FIRST, SECOND, WHOLE)
    base.folder.write_plan(plan)
    fresh = open_version("p", "v0", base.folder.url)

    review = review_plan(plan, fresh)

    assert review.steps[2].redo == Redo("all", 3)
    assert review.steps[2].unknown == 5


def test_the_cache_is_asked_for_many_items_at_once_and_not_for_those_taken_over(
    folder: Path, base: Version
) -> None:
    asked: list[list[str]] = []

    def ask(_: StepPlan, items: Sequence[Json]) -> list[bool]:
        asked.append([item["id"] for item in items])
        return [item["id"] == "e" for item in items]

    review = review_plan(plan_of(folder, FIRST, SECOND), base, ask=ask)

    assert asked == [["d", "e"]]
    assert told(review, 1)["e"] is Because.CACHED
    assert told(review, 1)["d"] is Because.FAILED


def test_a_plan_counts_what_is_run_and_what_is_paid(folder: Path, base: Version) -> None:
    review = review_plan(
        plan_of(folder, FIRST, SECOND),
        base,
        ask=lambda _, items: [True] + [False] * (len(items) - 1),
    )

    scaled = scaled_plan(review).steps[0]

    assert (scaled.items, scaled.batches) == (2, 1)  # d by the cache, and e
    assert (scaled.calls, scaled.input_tokens, scaled.cost_usd) == (2, 20, pytest.approx(0.2))


def jobs(*values: int) -> StepPlan:
    experiment = Experiment(matrix=Matrix({"leaf": values}))
    return step(1, "jobs", input=InputSpec("jobs:", experiment=experiment))


def ran(folder: Path, *values: int) -> Version:
    """v0 of an experiment whose jobs all ended well."""
    made, plan = (
        Outputs(str(folder / "outputs")).create_version("p"),
        plan_of(folder, jobs(*values)),
    )
    record = RunRecord("r", "p", "v0", RunState.COMPLETED, "draft", "", "initial", "", "", "")
    made.write_plan(plan)
    made.write_metadata(record, plan, {})
    made.freeze_items(1, iter_items(plan, 1))
    made.write_batch(1, 0, [ended(f"matrix_leaf{n}", at) for at, n in enumerate(values)], OUTPUT)
    return open_version("p", "v0", made.url)


def test_jobs_are_taken_over_by_name_wherever_new_ones_stand(folder: Path) -> None:
    now = plan_of(folder, jobs(10, 50, 20))

    review = review_plan(now, ran(folder, 20, 50, 70))

    (seen,) = review.steps
    assert told(review, 1) == {
        "matrix_leaf20": Because.TAKEN_OVER,
        "matrix_leaf50": Because.TAKEN_OVER,
        "matrix_leaf10": Because.NEW,
    }
    assert (seen.redo, seen.running, seen.kept) == (Redo("some", 1), {3}, ((0, 2), (3, 4)))
    placed = placed_items(now, 1, seen.places)
    assert [(item.id, item.index) for item in placed] == [
        *(("matrix_leaf20", 0), ("matrix_leaf50", 1), ("matrix_leaf10", 3)),
    ]


def test_a_job_with_other_parameters_runs_again(folder: Path) -> None:
    experiment = Experiment(matrix=Matrix({"leaf": (50, 20)}, base_params={"smart": True}))
    now = step(1, "jobs", input=InputSpec("jobs:", experiment=experiment))

    review = review_plan(plan_of(folder, now), ran(folder, 20, 50))

    assert {*told(review, 1).values()} == {Because.INPUT}


def test_without_a_version_before_everything_is_new(folder: Path) -> None:
    review = review_plan(plan_of(folder, FIRST, SECOND), None)

    assert set(told(review, 1).values()) == {Because.NEW}
    assert review.steps[1].unknown == 5
    assert not review.takes_over
