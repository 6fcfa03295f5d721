"""Reads what a report tells out of a run folder, whether the run is over or half way."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from batchq.errors import StoreError, UsageError
from batchq.expand import Experiment, expand
from batchq.outcome import Json, Outcome
from batchq.plan import Goal, Plan, ReportSpec, StepPlan
from batchq.report.failures import Failure, group_failures
from batchq.report.figures import USUAL_METRICS, StepFigures
from batchq.report.tables import MEASURES, TOOK, Report, Row
from batchq.text.amounts import count

if TYPE_CHECKING:
    from batchq.store import RunFolder

MOST_AXES = 12
"""Parameters that vary, beyond which those of written jobs are no axes."""
MOST_FILES = 8


def gather(
    folder: RunFolder,
    *,
    metric: str | None = None,
    goal: Goal | None = None,
    baseline: str | None = None,
) -> Report:
    """Gathers a report; what is given goes before what the manifest says.

    Raises UsageError for a metric that no job has, or a baseline that is no job.
    """
    plan, spec = folder.read_plan(), folder.read_plan().report or ReportSpec()
    metadata = folder.read_metadata()
    seen = _Seen()
    for step in plan.steps:
        seen.read(step, folder, spec)
    jobs, axes = seen.jobs, seen.axes
    names = _metrics(jobs, spec)
    wanted = metric or next((one.name for one in spec.metrics), None)
    return Report(
        name=plan.name,
        pipeline=plan.pipeline,
        version=metadata.version,
        state=metadata.status if metadata.ended else "under way",
        about=_about(folder, plan, metadata, seen),
        jobs=jobs,
        axes=axes,
        metrics=names,
        metric=_chosen(metric, wanted, names, jobs),
        goal=goal or _goal(spec, wanted, names),
        baseline=_baseline(baseline, spec, jobs),
        planned=plan.steps[0].items,
        steps=seen.steps,
        failures=group_failures(seen.failed),
        ended_at=sorted(seen.ended),
        tokens_at=seen.tokens,
        worked_s=_worked_s(metadata, seen.ended),
        warnings=_warnings(jobs, names),
    )


@dataclass
class _Seen:
    """What is gathered on one way through all outcomes."""

    steps: list[StepFigures] = field(default_factory=list)
    jobs: list[Row] = field(default_factory=list)
    axes: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    tokens: list[tuple[float, int]] = field(default_factory=list)
    hosts: Counter[str] = field(default_factory=Counter)

    def read(self, step: StepPlan, folder: RunFolder, spec: ReportSpec) -> None:
        """Takes up the outcomes of a step."""
        number, experiment = step.spec.number, step.input.experiment
        names = step.spec.stats.only if step.spec.stats else ()
        wanted = [one.name for one in spec.metrics] or [*names] or USUAL_METRICS
        figures = StepFigures(step.spec.name, wanted=() if experiment else wanted)
        settings: Mapping[int, Mapping[str, Json]] = {}
        repeats: Mapping[str, str] = {}
        of_matrix: frozenset[str] = frozenset()
        if experiment is not None:
            self.axes = _axes(experiment, folder, number)
            settings = {item.index: item.data for item in folder.all_items(number)}
            named = expand(experiment)
            repeats = {job.name: job.setting for job in named}
            written = sum(job.repeats for job in experiment.jobs)
            of_matrix = frozenset(job.name for job in named[written:])
        for outcome in folder.merged(number):
            self._add(figures, outcome)
            if experiment is not None:
                row = _row(outcome, settings.get(outcome.index, {}), self.axes)
                setting = repeats.get(outcome.item_id, "")
                self.jobs.append(
                    replace(row, is_of_matrix=outcome.item_id in of_matrix, setting=setting)
                )
        self.steps.append(figures)

    def _add(self, figures: StepFigures, outcome: Outcome) -> None:
        figures.add(outcome)
        self.ended.append(outcome.ended_at)
        if outcome.usage.tokens:
            self.tokens.append((outcome.ended_at, outcome.usage.tokens))
        if outcome.worker:
            host = outcome.worker.rpartition("-")[0].rpartition("-")[0]
            self.hosts[host or outcome.worker] += 1
        if outcome.error is not None:
            self.failed.append(Failure(outcome.item_id, figures.name, outcome.error))


def _row(outcome: Outcome, params: Mapping[str, Json], axes: Sequence[str]) -> Row:
    measured = outcome.measured
    took = {TOOK: round(outcome.ended_at - outcome.started_at, 3)}
    if measured is not None:
        known = {name: getattr(measured, name) for name in MEASURES}
        # Of a process that was killed nobody knows all.
        took = {name: value for name, value in known.items() if value or outcome.is_ok}
    return Row(
        name=outcome.item_id,
        is_ok=outcome.is_ok,
        settings={axis: params[axis] for axis in axes if axis in params},
        metrics=measured.metrics if measured else {},
        measures=took,
        error=f"{outcome.error.kind}: {outcome.error.message}" if outcome.error else "",
        problem=measured.problem if measured else "",
    )


def _axes(experiment: Experiment, folder: RunFolder, step: int) -> list[str]:
    """The axes of the matrix, else the parameters that differ between the jobs."""
    if experiment.matrix is not None:
        return [axis for axis, values in experiment.matrix.axes.items() if len(values) > 1]
    seen: dict[str, set[str]] = {}
    for item in folder.all_items(step):
        for name, value in item.data.items():
            seen.setdefault(name, set()).add(repr(value))
    has_repeats = any(job.repeats > 1 for job in experiment.jobs)
    names = [name for name, values in seen.items() if len(values) > 1]
    return [name for name in names if name != "seed" or not has_repeats][:MOST_AXES]


def _metrics(jobs: Iterable[Row], spec: ReportSpec) -> list[str]:
    """The metrics that the manifest names, else all that jobs have, in the order they come."""
    if spec.metrics:
        return [one.name for one in spec.metrics if one.name not in MEASURES]
    return [*dict.fromkeys(name for row in jobs for name in row.metrics)]


def _chosen(
    asked: str | None, wanted: str | None, names: Sequence[str], jobs: Sequence[Row]
) -> str:
    """The metric that ranks. That of the manifest may be in no job: all may have failed."""
    known = [*dict.fromkeys(name for row in jobs for name in (*row.metrics, *MEASURES))]
    if asked is not None and asked not in known:
        raise UsageError(f"no job has a metric `{asked}`; there are {', '.join(known) or 'none'}")
    return wanted or next(iter(names), TOOK)


def _goal(spec: ReportSpec, wanted: str | None, names: Sequence[str]) -> Goal:
    for one in spec.metrics:
        if one.name == wanted:
            return one.goal
    is_measure = wanted in MEASURES or (wanted is None and not names)
    return "min" if is_measure else "max"


def _baseline(given: str | None, spec: ReportSpec, jobs: Sequence[Row]) -> str:
    names = [*dict.fromkeys(name for row in jobs for name in (row.name, row.setting) if name)]
    if given is not None and given not in names:
        shown = ", ".join(names[:10])
        raise UsageError(f"--baseline {given}: no job is called so; there are {shown}")
    if given is not None or spec.baseline:
        return given or spec.baseline
    return "baseline" if "baseline" in names else ""


def _warnings(jobs: Sequence[Row], names: Sequence[str]) -> list[str]:
    done = [row for row in jobs if row.is_ok]
    found = []
    for name in names:
        missing = [row.name for row in done if row.value(name) is None]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            found.append(f"{name} is missing or NaN in {', '.join(missing[:3])}{more}")
    found += [f"{problem} ({count} jobs)" for problem, count in
              Counter(row.problem for row in done if row.problem).most_common(3)]  # fmt: skip
    return found


def _worked_s(metadata: Any, ended: Sequence[float]) -> float:
    """How long the run was at work; of one under way, until its newest outcome."""
    if metadata.ended:
        return float(metadata.duration_seconds)
    began = datetime.fromisoformat(metadata.timestamp).timestamp()
    return max(0.0, max(ended, default=began) - began)


def _about(folder: RunFolder, plan: Plan, metadata: Any, seen: _Seen) -> dict[str, str]:
    """Where the run came from: what its lock says, where that can be read."""
    models = sum((step.models for step in seen.steps), Counter[str]())
    about = {
        "manifest": plan.manifest_path,
        "models": ", ".join(f"{name} ({count(n, 'call')})" for name, n in models.most_common()),
        "hosts": ", ".join(f"{name} ({count(n, 'item')})" for name, n in seen.hosts.most_common(8)),
        "started": metadata.timestamp,
        "ended": metadata.ended or "under way",
        "label": metadata.pipeline_status,
        "notes": metadata.notes,
        "folder": folder.url,
        "made from": _hashes(plan),
    }
    try:
        lock = YAML(typ="safe", pure=True).load(io.StringIO(folder.read_lock())) or {}
    except StoreError:
        return {name: value for name, value in about.items() if value}
    versions, git = lock.get("versions", {}), lock.get("git")
    if git:
        dirty = ", with changes that are not committed" if git.get("dirty") else ""
        about["git commit"] = f"{git['commit'][:12]}{dirty}"
    wanted = ("batchq", "python", "platform")
    about["versions"] = ", ".join(f"{one} {versions[one]}" for one in wanted if one in versions)
    params = ", ".join(f"{name}={value}" for name, value in plan.params.items())
    return {name: value for name, value in {**about, "params": params}.items() if value}


def _hashes(plan: Plan) -> str:
    """The files that the plan was made from, with the first digits of their SHA-256."""
    named = [
        ((name.partition(":")[2] or name).rstrip(":"), text[:8])
        for name, text in plan.hashes.items()
    ]
    more = f" and {len(named) - MOST_FILES} more" if len(named) > MOST_FILES else ""
    return ", ".join(f"{name} ({text})" for name, text in named[:MOST_FILES]) + more
