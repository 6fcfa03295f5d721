"""What a report reads out of a run folder, of a run that is over or half way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from batchq.errors import UsageError
from batchq.manifest.loader import load_manifest
from batchq.outcome import ItemError, Measured, Outcome, State, Summary
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import iter_items, make_plan
from batchq.progress import RunState
from batchq.records import RunRecord
from batchq.report import gather, write_reports
from batchq.store import Outputs, RunFolder

MANIFEST = """
task: m:f
config: {output_dir: out, batch_size: 2}
jobs: [{name: baseline, params: {leaf: 5}}]
matrix: {axes: {leaf: [10, 20, 40]}}
report: {metrics: [{loss: min}, nodes]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    path = tmp_path / "tuning.yaml"
    path.write_text(MANIFEST)
    manifest = load_manifest(path)
    plan = make_plan(manifest)
    made = Outputs("out", str(tmp_path)).create_version("tuning")
    made.write_plan(plan)
    made.write_lock(manifest_lock(manifest, plan))
    made.freeze_items(1, iter_items(plan, 1))
    record = RunRecord(
        run="r", pipeline="tuning", version="v0", folder=made.url, state=RunState.PENDING,
        mode="submit", base_version="", status="draft", notes="",
        created_at="2026-11-21T09:00:00Z", items=4, summary=Summary(), duration_s=0.0,
    )  # fmt: skip
    made.write_metadata(record, plan, {})
    return made


def ended(index: int, name: str, **metrics: float | None) -> Outcome:
    measured = Measured(1.0, 0.5, 2**20, 10, metrics)
    return Outcome(
        name, index, State.OK, output={}, started_at=1.0, ended_at=2.0, measured=measured
    )


def died(index: int, name: str) -> Outcome:
    error = ItemError("worker_lost", "its process died of a segmentation fault (SIGSEGV)")
    return Outcome(name, index, State.FAILED, error=error, started_at=1.0, ended_at=1.0)


def write(folder: RunFolder, batch: int, *outcomes: Outcome) -> None:
    folder.write_batch(1, batch, outcomes, folder.read_plan().step(1).output)


def test_half_way_a_report_tells_of_the_jobs_that_have_ended(folder: RunFolder) -> None:
    write(folder, 0, ended(0, "baseline", loss=0.5), ended(1, "matrix_leaf10", loss=0.25, nodes=3))

    report = gather(folder)

    assert (report.state, report.planned) == ("under way", 4)
    assert [row.name for row in report.ranked] == ["matrix_leaf10", "baseline"]
    assert (report.metric, report.goal, report.baseline) == ("loss", "min", "baseline")
    assert report.axes == ["leaf"]
    assert [row.settings["leaf"] for row in report.jobs] == [5, 10]
    assert [row.is_of_matrix for row in report.jobs] == [False, True]
    assert report.warnings == ["nodes is missing or NaN in baseline"]


def test_a_metric_may_be_missing_in_some_jobs_and_nan_in_others(folder: RunFolder) -> None:
    write(folder, 0, ended(0, "baseline", loss=None), ended(1, "matrix_leaf10", loss=0.25))
    write(folder, 1, died(2, "matrix_leaf20"), ended(3, "matrix_leaf40", nodes=1))

    report = gather(folder)

    assert report.best is not None
    assert report.best.name == "matrix_leaf10"
    assert report.warnings[0] == "loss is missing or NaN in baseline, matrix_leaf40"
    assert [group.kind for group in report.failures] == ["worker_lost"]


def test_all_jobs_may_have_failed(folder: RunFolder) -> None:
    write(folder, 0, died(0, "baseline"), died(1, "matrix_leaf10"))

    written = write_reports(folder, gather(folder), ("csv", "md", "html"))

    assert [Path(path).name for path in written] == ["summary.csv", "report.md", "report.html"]
    assert "segmentation fault" in Path(written[2]).read_text("utf-8")


def test_a_report_of_no_job_yet_is_one_all_the_same(folder: RunFolder) -> None:
    report = gather(folder)

    assert (report.jobs, report.best) == ([], None)
    write_reports(folder, report, ("csv", "md", "html"))


def test_who_asks_for_a_metric_or_a_baseline_that_is_not_there_is_told(folder: RunFolder) -> None:
    write(folder, 0, ended(0, "baseline", loss=0.5), died(1, "matrix_leaf10"))

    with pytest.raises(UsageError, match="no job has a metric `los`; there are loss, duration_s"):
        gather(folder, metric="los")
    with pytest.raises(UsageError, match="--baseline base: no job is called so"):
        gather(folder, baseline="base")


def test_what_is_asked_for_goes_before_the_manifest(folder: RunFolder) -> None:
    write(folder, 0, ended(0, "baseline", loss=0.5), ended(1, "matrix_leaf10", loss=0.25))

    report = gather(folder, goal="max", baseline="matrix_leaf10", metric="peak_bytes")

    assert (report.metric, report.goal, report.baseline) == ("peak_bytes", "max", "matrix_leaf10")


def test_a_report_says_where_a_run_came_from(folder: RunFolder) -> None:
    about = gather(folder).about

    assert about["manifest"].endswith("tuning.yaml")
    assert about["versions"].startswith("batchq ")
    assert about["ended"] == "under way"
    assert re.fullmatch(r"manifest \([0-9a-f]{8}\), jobs \([0-9a-f]{8}\)", about["made from"])


@pytest.mark.parametrize(
    ("keys", "names"),
    [("", ["confidence"]), ("    metrics: [deep__score]\n", ["deep__score"])],
)
def test_metrics_of_a_step_that_asks_a_model_are_those_it_names(
    tmp_path: Path, keys: str, names: list[str]
) -> None:
    path = tmp_path / "ask.yaml"
    path.write_text(
        "config: {output_dir: out}\nproviders: {sim: {kind: simulator}}\nsteps:\n"
        "  - name: ask\n    input: {generate: 2}\n    prompt: |\n      Say\n      {number}\n" + keys
    )
    plan = make_plan(load_manifest(path))
    made = Outputs("out", str(tmp_path)).create_version("ask")
    made.write_plan(plan)
    record = RunRecord("r", "ask", "v0", RunState.COMPLETED, "draft", "", "submit", "", made.url,
                       "2026-11-21T09:00:00Z", "2026-11-21T09:01:00Z", 60.0)  # fmt: skip
    made.write_metadata(record, plan, {})
    outputs = [{"confidence": 0.5, "deep": {"score": 2}}, {"confidence": 1, "deep": {"score": 4}}]
    made.write_batch(1, 0, [Outcome(str(n), n, State.OK, one, worker="vm-7-ab12")
                            for n, one in enumerate(outputs)], plan.step(1).output)  # fmt: skip

    report = gather(made)

    (step,) = report.steps
    assert [*step.metrics] == names
    assert report.about["hosts"] == "vm (2 items)"
    assert report.worked_s == 60.0
