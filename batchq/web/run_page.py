"""The page of one run: how far, how fast, what fails, what it costs, what holds it back."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any

from batchq.actions.asjson import progress_json, record_json
from batchq.actions.lookup import Found, as_seen
from batchq.errors import BatchqError, RunNotFound, StoreError
from batchq.manifest.labels import KNOWN_LABELS
from batchq.progress import Progress, RunState
from batchq.records import RunRecord, iso
from batchq.report.charts import histogram
from batchq.runs.life import open_folder
from batchq.runs.versions import is_read_only
from batchq.web.query import Query
from batchq.web.reader import Reader
from batchq.web.throughput import live_spans, percentile, spread

MOST_EVENTS = 30
_LEAST_ITEMS = 5  # that a distribution is made of
_MOST_STEPS = 8


def read_run(reader: Reader, name: str, _: Query) -> dict[str, Any]:
    """Everything about a run that counters and its batches tell; no item is counted."""
    found = reader.found(name)
    record = found.record
    told: dict[str, Any] = {"name": found.name, "run": found.run, "record": None}
    if record is not None:
        seen_record = as_seen(record, reader.settings) if not reader.trouble else record
        told["record"] = record_json(seen_record)
    try:
        seen, problem = reader.progress(found)
    except (RunNotFound, StoreError) as error:
        if record is None:
            raise
        return told | {"progress": None, "problem": str(error), "actions": []}
    return told | {
        "progress": progress_json(seen) | {"latest_failures": list(seen.recent[:10])},
        "problem": problem,
        "is_live": not seen.state.is_over,
        "pace": _pace(reader, seen),
        "steps": [_step(step.number, seen) for step in seen.steps],
        "told": [
            {"item": one.item_id, "step": one.step, "done": one.done, "total": one.total}
            for one in seen.told[:20]
        ],
        "chart": _chart(reader, record, seen),
        "latency": _latency(reader, record, seen),
        "events": _events(record),
        "versions": _versions(reader, record),
        "labels": list(KNOWN_LABELS),
        "actions": possible_actions(found, seen, is_away=bool(problem)),
    }


def possible_actions(found: Found, seen: Progress, *, is_away: bool = False) -> list[str]:
    """What can be done with a run as it stands."""
    record, state = found.record, seen.state
    if is_away:
        return []
    if not state.is_over:
        return ["pause", "cancel"]
    if record is None:
        return ["cancel"] if state is RunState.PAUSED else []
    actions = []
    if state is RunState.PAUSED:
        waits = seen.canary is not None and not seen.canary.is_decided
        actions += ["approve"] if waits else ["unpause"]
        actions.append("cancel")
    elif state is not RunState.COMPLETED:
        actions.append("unpause")
    if seen.summary.failed and not is_read_only(record):
        actions.append("retry")
    return [*actions, "label"]


def _pace(reader: Reader, seen: Progress) -> dict[str, Any]:
    """Items a second now and on average, and how long the rest takes at that pace."""
    took = max(0.0, seen.updated_at - seen.started_at)
    mean = seen.summary.total / took if took else None
    if seen.state.is_over:
        return {"now": None, "mean": mean, "left_s": None}
    now = reader.pace(seen)
    current = [step for step in seen.steps if step.state == "running"]
    left = sum(step.total - step.summary.total for step in current)
    is_held = any(step.next_batch_at for step in current)
    rate = now or mean
    left_s = left / rate if rate and left and not is_held else None
    return {"now": now, "mean": mean, "left_s": left_s}


def _step(number: int, seen: Progress) -> dict[str, Any]:
    step = seen.steps[number - 1]
    done = step.summary
    running = seen.in_flight if step.state == "running" else 0
    others = [one for one in seen.steps if one.state == "running" and one.number != number]
    return {
        "number": step.number,
        "name": step.name,
        "state": step.state,
        "batches": step.batches,
        "collated": step.collated,
        "retries": done.retries,
        "cost_usd": done.usage.cost_usd,
        "unpriced_calls": done.usage.unpriced_calls,
        "tokens": done.usage.tokens,
        "next_batch_at": iso(step.next_batch_at) if step.next_batch_at else None,
        "bar": {
            "total": max(step.total, done.total),
            "ok": max(0, done.ok - done.cached),
            "cached": min(done.ok, done.cached),
            "failed": done.failed,
            # Which step an item in flight is of, nobody counts: with one step at work it is known.
            "running": 0 if others else min(running, max(0, step.total - done.total)),
        },
    }


def _chart(reader: Reader, record: RunRecord | None, seen: Progress) -> dict[str, Any] | None:
    """Items that ended over time."""
    spans = reader.listing.spans(record.run) if record is not None else []
    if not seen.state.is_over:
        spans = live_spans(spans, reader.looks(seen), seen.started_at)
    if not spans:
        return None
    start = min(one.start for one in spans)
    end = start if seen.state.is_over else seen.updated_at
    found = spread(spans, start, end)
    return {
        "start": iso(found.start),
        "every_s": found.every_s,
        "ok": [round(one, 4) for one in found.ok],
        "failed": [round(one, 4) for one in found.failed],
    }


def _latency(reader: Reader, record: RunRecord | None, seen: Progress) -> dict[str, Any] | None:
    """How long the newest items took: of the step at work, else of the one that takes longest.

    A step that counts words would else hide the one that calls a model.
    """
    begun = [step for step in seen.steps if step.collated]
    begun = [step for step in begun if step.state == "running"] or begun
    if record is None:
        return None
    found = {
        step.number: sorted(reader.listing.durations(record.run, step.number))
        for step in begun[-_MOST_STEPS:]
    }
    found = {number: values for number, values in found.items() if len(values) >= _LEAST_ITEMS}
    if not found:
        return None
    number, values = max(found.items(), key=lambda one: percentile(one[1], 0.5))
    most = max(2 * percentile(values, 0.95), 0.001)  # a long tail would press all others together
    return {
        "step": number,
        "items": len(values),
        "p50_s": percentile(values, 0.5),
        "p95_s": percentile(values, 0.95),
        "p99_s": percentile(values, 0.99),
        "longest_s": values[-1],
        "bars": [
            {"count": one.count, "from_s": one.low, "to_s": one.high}
            for one in histogram(values, most)
        ],
    }


def _events(record: RunRecord | None) -> list[dict[str, str]]:
    """What happened to the run, newest first."""
    if record is None:
        return []
    try:
        newest = deque(open_folder(record.folder).read_log(), maxlen=MOST_EVENTS)
    except BatchqError:  # a line of it is broken; the run itself is not
        return []
    told = []
    for event in reversed(newest):
        known = ("ts", "event", "level", "v", "seen_at")
        words = [f"{key} {value}" for key, value in event.items() if key not in known and value]
        told.append(
            {
                "at": iso(float(event.get("ts", 0.0))),
                "level": str(event.get("level", "info")),
                "event": str(event.get("event", "")),
                "words": ", ".join(words),
            }
        )
    return told


def _versions(reader: Reader, record: RunRecord | None) -> list[dict[str, str]]:
    """The newest versions of the pipeline, to compare with."""
    if record is None:
        return []
    found: Sequence[RunRecord] = reader.listing.versions(record.pipeline, 30)
    return [
        {"version": one.version, "state": one.state.value, "status": one.status}
        for one in islice(found, 30)
    ]
