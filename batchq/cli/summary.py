"""How a run ended: for people, for programs, and as an exit code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchq.actions.asjson import progress_json
from batchq.actions.views import uploads_text, ways_text
from batchq.cli.output import short_path
from batchq.engine.budget import budget_text
from batchq.engine.canary import canary_text
from batchq.errors import StoreError
from batchq.plan import is_remote
from batchq.progress import Progress, RunState
from batchq.text.amounts import count, duration, money

REPORTS = ("report.html", "report.md", "summary.csv")
"""The files of a report, the one that people open first."""


@dataclass(frozen=True, slots=True)
class Files:
    """What a run left for its user to open; only files that are there."""

    collated: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    reports: tuple[str, ...] = ()


def find_files(folder: str) -> Files:
    """Looks for a version's collated files and error files; nothing if it is out of reach."""
    if is_remote(folder):
        return _files_at(folder)
    root = Path(folder.removeprefix("file://"))
    if not root.is_dir():
        return Files()
    collated = sorted(path for path in (root / "collated").glob("*") if path.is_file())
    # An errors file is written also when there is nothing to tell.
    errors = sorted(path for path in root.glob("*_errors.json") if path.stat().st_size > 4)
    reports = [path for name in REPORTS if (path := root / name).is_file()]
    return Files(*(tuple(map(short_path, found)) for found in (collated, errors, reports)))


def _files_at(url: str) -> Files:
    from batchq.store.files import open_files  # with the store's client it takes half a second

    try:
        files = open_files(url)
        collated = tuple(f"{url}/collated/{name}" for name in files.names("collated"))
        names = files.names()
        errors = tuple(f"{url}/{name}" for name in names if name.endswith("_errors.json"))
        return Files(collated, errors, tuple(f"{url}/{one}" for one in REPORTS if one in names))
    except StoreError:  # the run is over; how it ended is known without the store
        return Files()


def as_json(progress: Progress) -> dict[str, Any]:
    """A run for programs, with its files; `status --json` and `submit --json` print it."""
    files = find_files(progress.folder)
    told = {name: list(getattr(files, name)) for name in ("collated", "errors", "reports")}
    return progress_json(progress) | told


def summary_lines(progress: Progress) -> list[str]:
    """A run that is over, for people: state, counts, cost, files, and what to do next."""
    name = f"{progress.pipeline}@{progress.version}"
    summary, usage = progress.summary, progress.summary.usage
    counts = [f"{summary.ok:,} ok", f"{summary.failed:,} failed"]
    if summary.retries:
        counts.append(f"{summary.retries:,} retried")
    if summary.repaired:
        counts.append(f"{summary.repaired:,} repaired")
    if summary.cached:
        counts.append(f"{summary.cached:,} from cache")
    took = duration(max(0.0, progress.updated_at - progress.started_at))
    lines = [f"{name}  {progress.state.value}  {', '.join(counts)}  in {took}"]
    if progress.reason:
        lines.append(f"  reason   {progress.reason}")
    if usage.calls:
        tokens = f"{usage.input_tokens:,} + {usage.output_tokens:,} tokens"
        cost = money(usage.cost_usd, usage.unpriced_calls)
        lines.append(f"  cost     {cost}, {count(usage.calls, 'call')}, {tokens}")
    if ways := ways_text(summary):
        lines.append(f"  went     {ways}")
    if uploads := uploads_text(progress):
        lines.append(f"  uploads  {uploads}")
    if progress.budget is not None:
        lines.append(f"  budget   {budget_text(progress.budget)}")
    if progress.canary is not None:
        lines.append(f"  canary   {progress.canary.state}: {canary_text(progress.canary)}")
    files = find_files(progress.folder)
    lines += [f"  result   {path}" for path in files.collated]
    lines += [f"  report   {path}" for path in files.reports[:1]]
    lines += [f"  errors   {path}" for path in files.errors]
    if hint := _next_step(progress, name):
        lines.append(f"  next     {hint}")
    return lines


def _next_step(progress: Progress, name: str) -> str:
    if progress.state is RunState.PAUSED:
        if progress.canary is not None and not progress.canary.is_decided:
            return f"batchq approve {name}, or batchq cancel {name}"
        return f"batchq resume {name}"
    if progress.state is RunState.FAILED:
        return f"mend the cause, then batchq retry {name}; batchq failures {name} says what failed"
    if progress.summary.failed:
        return f"batchq failures {name} says what failed, batchq retry {name} runs it again"
    return ""
