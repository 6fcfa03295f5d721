"""Reads the experiment of a manifest: checks that its parts fit, and makes a step of its jobs."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchq.errors import UsageError
from batchq.expand import ExpandError, Experiment, Job, Matrix, expand
from batchq.manifest.models import Manifest, Retry, Step
from batchq.plan import Metric, Pacing, ReportSpec

Report = Callable[[tuple[str | int, ...], str, str], None]

STEP = "jobs"
"""The name of the step whose items are the jobs."""
SOURCE = "jobs:"
"""The input of that step."""
KEYS = ("task", "jobs", "matrix")
FORMATS = ("csv", "md", "html")
AT_ONCE = 256
"""Jobs that are sent out at a time: more than any cluster has slots for them."""


def is_experiment(data: Mapping[str, Any]) -> bool:
    """Whether a manifest, as written, has jobs instead of steps."""
    return any(data.get(key) is not None for key in KEYS)


def check_keys(data: Mapping[str, Any], report: Report) -> None:
    """Reports which of `task`, `jobs`, `matrix` and `steps` do not go together."""
    if data.get("setup") is not None and data.get("task") is None:
        report(("setup",), "there is no `task` to set up for", "in a pipeline, it stands in a step")
    if not is_experiment(data):
        if data.get("steps") is None:
            hint = "or `task` with `jobs` or `matrix`"
            report(("steps",), "`steps` is missing", hint)
        return
    present = [key for key in KEYS if data.get(key) is not None]
    if data.get("steps") is not None:
        message = f"`steps` and `{present[-1]}` do not go together: a run has steps or jobs"
        report((present[-1],), message, "keep one; a step can have a `task` of its own")
        return
    if "task" not in present:
        message = "an experiment needs a `task`: the function that a job runs"
        report((present[0],), message, "task: package.module:function")
    if present == ["task"]:
        message = "there is nothing to run it on: `jobs` and `matrix` are missing"
        report(("task",), message, "in a pipeline, `task` stands in a step")
    if isinstance(data.get("jobs"), list) and not data["jobs"]:
        report(("jobs",), "must not be empty", "")
    matrix = data.get("matrix")
    if isinstance(matrix, Mapping):
        _check_random(matrix, report)


def _check_random(matrix: Mapping[str, Any], report: Report) -> None:
    is_random = matrix.get("method") == "random"
    if is_random and matrix.get("samples") is None:
        report(("matrix", "method"), "`method: random` needs `samples`", "samples: 20")
    if not is_random and matrix.get("samples") is not None:
        message = "`samples` are drawn by `method: random` only"
        report(("matrix", "samples"), message, "add `method: random`, or take it out")


def experiment_of(manifest: Manifest) -> Experiment | None:
    """The experiment of a manifest, not expanded; None for a pipeline."""
    if manifest.task is None:
        return None
    jobs = tuple(Job(one.name, one.params, one.repeats) for one in manifest.jobs or ())
    matrix = manifest.matrix
    return Experiment(
        config=dict(manifest.config.model_extra or {}),
        jobs=jobs,
        matrix=None
        if matrix is None
        else Matrix(
            axes={axis: tuple(values) for axis, values in matrix.axes.items()},
            base_params=matrix.base_params,
            exclude=tuple(matrix.exclude),
            include=tuple(matrix.include),
            name=matrix.name,
            method=matrix.method,
            samples=matrix.samples,
            seed=matrix.seed,
            repeats=matrix.repeats,
            max_jobs=matrix.max_jobs,
        ),
    )


def check_expansion(manifest: Manifest, report: Report) -> None:
    """Expands the experiment of a manifest, if it has one, and reports why that cannot be."""
    experiment = experiment_of(manifest)
    if experiment is None:
        return
    try:
        jobs = expand(experiment)
    except ExpandError as error:
        report(error.key, str(error), error.hint)
        return
    wanted = manifest.report.baseline if manifest.report else ""
    names = [*dict.fromkeys(name for job in jobs for name in (job.name, job.setting) if name)]
    if wanted and wanted not in names:
        close = difflib.get_close_matches(wanted, names, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"jobs: {', '.join(names[:5])}"
        report(("report", "baseline"), f"no job is called `{wanted}`", hint)


def report_spec(manifest: Manifest) -> ReportSpec | None:
    """What the report on a run shows; an experiment has one unless it says `report: false`."""
    told = manifest.report
    if told is None:
        is_refused = manifest.origin.data.get("report") is False
        return None if is_refused or manifest.task is None else ReportSpec(FORMATS)
    metrics = [Metric(name, goal) for one in told.metrics for name, goal in one.items()]
    return ReportSpec(tuple(told.formats), tuple(metrics), told.baseline)


def with_jobs(manifest: Manifest) -> Manifest:
    """Gives an experiment the one step that it is: `task`, with the jobs as its items.

    A job takes what it takes, and what failed once mostly fails again: there is no time limit and
    no second try unless `config` says so.
    """
    if manifest.task is None:
        return manifest
    config, keys = manifest.config, manifest.config.model_fields_set
    step = Step(
        name=STEP,
        input=SOURCE,
        task=manifest.task,
        setup=manifest.setup,
        timeout=config.timeout if "timeout" in keys else 0.0,
        save_stats=config.save_stats if "save_stats" in keys else True,
        analyze=config.analyze if "analyze" in keys else True,
        retry=config.retry if "retry" in keys else Retry(max_retries=0),
    )
    return manifest.model_copy(update={"steps": [step]})


def pacing_of(jobs: int, delay_s: float) -> Pacing:
    """How jobs are cut into batches: a job is written down as soon as it has ended.

    It may have taken hours. Thousands of jobs take less each, and some of them share a batch.
    """
    size = min(50, 1 + jobs // 1000)
    return Pacing(size, AT_ONCE // size, delay_s)


def jobs_like(manifest: Manifest, patterns: Sequence[str]) -> list[str]:
    """The names of the jobs that patterns such as `matrix_leaf50_*` mean, in their order.

    Raises UsageError for a pattern that means none, or if the manifest has no jobs.
    """
    experiment = experiment_of(manifest)
    if experiment is None:
        raise UsageError("--job chooses jobs of an experiment; items of steps are chosen by --only")
    names = [job.name for job in expand(experiment)]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or names[:5]
            raise UsageError(f"--job {pattern}: no job is called so; nearest: {', '.join(close)}")
    return [name for name in names if any(fnmatch.fnmatchcase(name, one) for one in patterns)]
