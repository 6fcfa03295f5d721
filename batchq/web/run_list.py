"""The page of all runs."""

from __future__ import annotations

from typing import Any

from batchq.actions.asjson import record_json
from batchq.actions.lookup import as_seen
from batchq.errors import BatchqError
from batchq.progress import Progress, RunState
from batchq.records import RunRecord
from batchq.store.listing import RunFilter
from batchq.web.query import Query, choice, number
from batchq.web.reader import Reader

ARGUMENTS = ("pipeline", "state", "label", "text", "page")
STATES = ("open", "completed", "failed", "cancelled", "paused")
PAGE = 50


def read_runs(reader: Reader, query: Query) -> dict[str, Any]:
    """One page of runs, newest first, and what they can be filtered by."""
    wanted = RunFilter(
        query.get("pipeline", ""),
        choice(query, "state", STATES),
        query.get("label", ""),
        query.get("text", ""),
    )
    page = number(query, "page", 1, least=1, most=1_000_000)
    records, total = reader.listing.runs(wanted, offset=(page - 1) * PAGE, limit=PAGE)
    pipelines, labels = reader.listing.names()
    rows = [_row(reader, record) for record in records]
    is_plain = page == 1 and wanted == RunFilter()
    elsewhere = [_row_elsewhere(reader, run) for run in reader.runs_elsewhere()] if is_plain else []
    return {
        "runs": [*filter(None, elsewhere), *rows],
        "total": total,
        "page": page,
        "pages": max(1, -(-total // PAGE)),
        "filter": {name: query.get(name, "") for name in ARGUMENTS[:-1]},
        "pipelines": pipelines,
        "labels": labels,
        "problem": reader.trouble,
    }


def _row(reader: Reader, record: RunRecord) -> dict[str, Any]:
    """A run by its record; one that goes on, by its counters."""
    told = record_json(record) | {"name": f"{record.pipeline}@{record.version}"}
    if record.state is RunState.COMPLETED:
        return told | _ended(reader, record)
    found = reader.locate(record)
    if found.services is not None:
        try:
            seen, _ = reader.progress(found)
            return told | _going(reader, seen)
        except BatchqError:  # its folder is gone, or broken: the record is what there is
            return told | _ended(reader, record)
    shown = record if reader.trouble else as_seen(record, reader.settings)
    return told | _ended(reader, shown)


def _ended(reader: Reader, record: RunRecord) -> dict[str, Any]:
    summary = record.summary
    facts = reader.plan_facts(record)
    total = summary.total
    if record.state is not RunState.COMPLETED:
        total = max(total, record.items * (facts.steps if facts else 1))
    budget = facts.budget.nusd if facts and facts.budget else None
    return {
        "state": record.state.value,
        "bar": _bar(total, summary.ok, summary.cached, summary.failed, 0),
        "items_per_s": summary.total / record.duration_s if record.duration_s else None,
        "is_live": False,
        "budget_usd": None if budget is None else budget / 1e9,
        "reason": "",
    }


def _going(reader: Reader, seen: Progress) -> dict[str, Any]:
    summary, usage = seen.summary, seen.summary.usage
    first = seen.steps[0].total
    total = sum(step.total or first for step in seen.steps)
    budget = seen.budget.budget.nusd if seen.budget else None
    took = max(0.0, seen.updated_at - seen.started_at)
    pace = reader.pace(seen) if not seen.state.is_over else None
    return {
        "state": seen.state.value,
        "ok": summary.ok,
        "failed": summary.failed,
        "cost_usd": usage.cost_usd,
        "unpriced_calls": usage.unpriced_calls,
        "duration_s": round(took, 1),
        "bar": _bar(total, summary.ok, summary.cached, summary.failed, seen.in_flight),
        "items_per_s": pace if pace is not None else (summary.total / took if took else None),
        "is_live": not seen.state.is_over,
        "budget_usd": None if budget is None else budget / 1e9,
        "reason": seen.reason,
    }


def _row_elsewhere(reader: Reader, run: str) -> dict[str, Any] | None:
    """A run that the broker has and the catalog here does not."""
    try:
        found = reader.found(run)
        seen, _ = reader.progress(found)
    except BatchqError:
        return None  # it has just ended
    told = {
        "run": seen.run,
        "name": seen.run,
        "pipeline": seen.pipeline,
        "version": seen.version,
        "status": "",
        "notes": "submitted elsewhere",
        "mode": "",
        "base_version": None,
        "created_at": "",
        "ended_at": None,
        "items": seen.steps[0].total,
        "folder": seen.folder,
    }
    return told | _going(reader, seen)


def _bar(total: int, ok: int, cached: int, failed: int, running: int) -> dict[str, int]:
    """The four colours of a progress bar, and the whole."""
    return {
        "total": max(total, ok + failed + running),
        "ok": max(0, ok - cached),
        "cached": min(ok, cached),
        "failed": failed,
        "running": running,
    }
