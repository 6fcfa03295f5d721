from __future__ import annotations

from pathlib import Path

import pytest

from batchq.errors import UsageError
from batchq.manifest.loader import Overrides, check_manifest, load_manifest
from batchq.planning.planner import iter_items, make_plan

SEED = """
task: "gen:generate"
config:
  output_dir: "experiments/2026-02-01_tuning"
  dataset: "tencent"
  analyze: true
  save_stats: true
jobs:
  - name: "baseline"
    params: {smart: true, min_leaf_size: 20, semantic_threshold: 0.1}
  - name: "strict_clustering"
    params: {smart: true, min_leaf_size: 50, semantic_threshold: 0.2}
matrix:
  base_params: {smart: true}
  axes:
    min_leaf_size: [20, 50, 100]
    semantic_threshold: [0.1, 0.2, 0.3]
"""

BAD = {
    "empty axis": (
        "task: m:f\nmatrix: {axes: {a: []}}\n",
        ":2:17: matrix.axes.a: an axis without values leaves no job: give it at least one value",
    ),
    "axis that is a string": (
        "task: m:f\nmatrix: {axes: {a: abc}}\n",
        "matrix.axes.a: expected a list of values such as [20, 50, 100], found the text `abc`",
    ),
    "axis that is a number": ("task: m:f\nmatrix: {axes: {a: 3}}\n", "found the number `3`"),
    "axis with a value twice": (
        "task: m:f\nmatrix: {axes: {a: [1, 2, 1]}}\n",
        "matrix.axes.a: the number `1` is there twice, and would make the same jobs twice",
    ),
    "no axes": ("task: m:f\nmatrix: {axes: {}}\n", "matrix.axes: must not be empty"),
    "matrix without axes": ("task: m:f\nmatrix: {name: x}\n", "matrix.axes: `axes` is missing"),
    "axis with nan": (
        "task: m:f\nmatrix: {axes: {a: [1, .nan]}}\n",
        "`.nan` is no number",
    ),
    "too many": (
        f"task: m:f\nmatrix: {{axes: {{{', '.join(f'{x}: {[*range(100)]}' for x in 'abcde')}}}}}\n",
        "100 x 100 x 100 x 100 x 100 makes 10,000,000,000 jobs; at most 1,000,000 can be",
    ),
    "more than max_jobs": (
        "task: m:f\nmatrix: {axes: {a: [1, 2, 3]}, max_jobs: 2}\n",
        ":2:10: matrix.axes: 3 makes 3 jobs, and `max_jobs` is 2",
    ),
    "duplicate names": (
        "task: m:f\njobs:\n  - {name: a}\n  - {name: a}\n",
        ":4:6: jobs[1].name: two jobs are called `a`; the first is jobs[0].name",
    ),
    "jobs and steps": (
        "task: m:f\njobs: [{name: a}]\nsteps: [{name: s, input: {generate: 1}, task: 'm:f'}]\n",
        ":2:1: jobs: `steps` and `jobs` do not go together: a run has steps or jobs",
    ),
    "jobs without a task": ("jobs: [{name: a}]\n", "an experiment needs a `task`"),
    "task alone": ("task: m:f\n", "task: there is nothing to run it on"),
    "no jobs in jobs": ("task: m:f\njobs: []\n", "jobs: must not be empty"),
    "job without a name": ("task: m:f\njobs: [{params: {}}]\n", "jobs[0].name: `name` is missing"),
    "job with an unknown key": (
        "task: m:f\njobs: [{name: a, parms: {}}]\n",
        "jobs[0].parms: unknown key `parms` (did you mean `params`?)",
    ),
    "random without samples": (
        "task: m:f\nmatrix: {axes: {a: [1]}, method: random}\n",
        "matrix.method: `method: random` needs `samples` (samples: 20)",
    ),
    "samples of a grid": (
        "task: m:f\nmatrix: {axes: {a: [1]}, samples: 3}\n",
        "matrix.samples: `samples` are drawn by `method: random` only",
    ),
    "unknown method": (
        "task: m:f\nmatrix: {axes: {a: [1]}, method: bayes}\n",
        "matrix.method: expected 'grid', 'zip' or 'random', found the text `bayes`",
    ),
    "unknown baseline": (
        "task: m:f\njobs: [{name: base}]\nreport: {baseline: bas}\n",
        ":3:10: report.baseline: no job is called `bas` (did you mean `base`?)",
    ),
    "unknown format of a report": (
        "task: m:f\njobs: [{name: base}]\nreport: {formats: [pdf]}\n",
        "report.formats[0]: expected 'csv', 'md' or 'html', found the text `pdf`",
    ),
    "goal that is none": (
        "task: m:f\njobs: [{name: base}]\nreport: {metrics: [{loss: least}]}\n",
        "report.metrics[0]: expected a name, or {name: min} or {name: max}, found a mapping",
    ),
    "exclude of an unknown axis": (
        "task: m:f\nmatrix: {axes: {leaf: [1]}, exclude: [{leav: 1}]}\n",
        "matrix.exclude[0].leav: no axis `leav` (did you mean `leaf`?)",
    ),
}


def file(folder: Path, text: str) -> Path:
    path = folder / "tuning.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", BAD)
def test_a_bad_experiment_is_told_with_its_place(tmp_path: Path, name: str) -> None:
    text, words = BAD[name]

    problems = [str(problem) for problem in check_manifest(file(tmp_path, text))]

    assert len(problems) == 1, problems
    assert words in problems[0]


def test_the_manifest_of_the_seed_is_eleven_jobs(tmp_path: Path) -> None:
    plan = make_plan(load_manifest(file(tmp_path, SEED)))

    items = {item.id: item.data for item in iter_items(plan, 1)}
    assert [*items][:3] == ["baseline", "strict_clustering", "matrix_leaf20_thresh0.1"]
    assert (len(items), plan.step(1).items, plan.step(1).queue) == (11, 11, "cpu")
    assert plan.output_dir == "experiments/2026-02-01_tuning"
    job = items["matrix_leaf100_thresh0.3"]
    assert (job["dataset"], job["smart"], job["min_leaf_size"]) == ("tencent", True, 100)


def test_a_job_has_no_time_limit_and_one_try(tmp_path: Path) -> None:
    spec = make_plan(load_manifest(file(tmp_path, SEED))).step(1).spec

    assert (spec.timeout_s, spec.retry.max_retries) == (0.0, 0)


def test_config_sets_time_limit_and_tries_of_jobs(tmp_path: Path) -> None:
    text = "task: m:f\nconfig: {timeout: 9s, retry: {max_retries: 2}}\njobs: [{name: a}]\n"

    spec = make_plan(load_manifest(file(tmp_path, text))).step(1).spec

    assert (spec.timeout_s, spec.retry.max_retries) == (9.0, 2)


def test_a_pattern_chooses_jobs(tmp_path: Path) -> None:
    overrides = Overrides(jobs=("matrix_leaf50_*", "base*"))

    plan = make_plan(load_manifest(file(tmp_path, SEED), overrides=overrides))

    assert [item.id for item in iter_items(plan, 1)] == [
        "baseline",
        "matrix_leaf50_thresh0.1",
        "matrix_leaf50_thresh0.2",
        "matrix_leaf50_thresh0.3",
    ]


def test_a_pattern_that_means_no_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--job basline: no job is called so; nearest: baseline"):
        load_manifest(file(tmp_path, SEED), overrides=Overrides(jobs=("basline",)))


def test_a_pattern_needs_an_experiment(tmp_path: Path) -> None:
    path = file(tmp_path, "steps: [{name: s, input: {generate: 1}, task: 'm:f'}]\n")

    with pytest.raises(UsageError, match="--job chooses jobs of an experiment"):
        load_manifest(path, overrides=Overrides(jobs=("*",)))


def test_an_exclude_that_matches_nothing_is_a_warning_of_the_plan(tmp_path: Path) -> None:
    text = "task: m:f\nmatrix: {axes: {a: [1, 2]}, exclude: [{a: 3}]}\n"

    plan = make_plan(load_manifest(file(tmp_path, text)))

    assert plan.warnings == ('matrix.exclude[0] matches no combination: {"a": 3}',)


def test_placeholders_are_filled_in_axes(tmp_path: Path) -> None:
    text = "params: {leafs: [1, 2]}\ntask: m:f\nmatrix: {axes: {leaf: '${params.leafs}'}}\n"

    plan = make_plan(load_manifest(file(tmp_path, text)))

    assert [item.data["leaf"] for item in iter_items(plan, 1)] == [1, 2]


def test_a_baseline_may_be_a_setting_with_repeats(tmp_path: Path) -> None:
    text = "task: m:f\njobs: [{name: base, repeats: 2}]\nreport: {baseline: base}\n"

    assert check_manifest(file(tmp_path, text)) == []


def test_an_experiment_has_reports_unless_it_wants_none(tmp_path: Path) -> None:
    jobs = "task: m:f\njobs: [{name: a}]\n"

    plan = make_plan(load_manifest(file(tmp_path, jobs)))
    silent = make_plan(load_manifest(file(tmp_path, f"{jobs}report: false\n")))
    told = make_plan(
        load_manifest(
            file(tmp_path, f"{jobs}report: {{metrics: [x, {{y: min}}], formats: [md]}}\n")
        )
    )

    assert plan.report is not None
    assert plan.report.formats == ("csv", "md", "html")
    assert silent.report is None
    assert told.report is not None
    assert [(one.name, one.goal) for one in told.report.metrics] == [("x", "max"), ("y", "min")]


def test_a_job_is_a_batch_of_its_own_unless_the_manifest_says_otherwise(tmp_path: Path) -> None:
    jobs = "task: m:f\njobs: [{name: a}]\n"

    plan = make_plan(load_manifest(file(tmp_path, jobs)))
    sized = make_plan(load_manifest(file(tmp_path, f"{jobs}config: {{batch_size: 7}}\n")))

    grid = (
        "task: m:f\nmatrix: {axes: {a: ["
        + ", ".join(map(str, range(2500)))
        + "]}, max_jobs: 9999}\n"
    )
    many = make_plan(load_manifest(file(tmp_path, grid))).step(1).pacing

    assert (many.batch_size, many.concurrent_batches) == (3, 85)
    assert (plan.step(1).pacing.batch_size, sized.step(1).pacing.batch_size) == (1, 7)
