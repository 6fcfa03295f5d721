"""The pages of a run's items, and of one item."""

from __future__ import annotations

from typing import Any

from batchq.actions.asjson import story_json
from batchq.actions.lookup import Found
from batchq.errors import RunNotFound, StoreError, UsageError
from batchq.ports import Progress
from batchq.runs.story import Story, tell
from batchq.runs.versions import is_read_only
from batchq.store.listing import ItemFilter
from batchq.web.query import Query, choice, number
from batchq.web.reader import Reader

ARGUMENTS = ("step", "state", "kind", "text", "after", "before", "from")
STATES = ("ok", "failed")
PAGE = 100


def read_items(reader: Reader, name: str, query: Query) -> dict[str, Any]:
    """One page of a run's items whose batches are collated, in input order."""
    found = reader.found(name)
    step = number(query, "step", 0, most=10_000) or None
    wanted = ItemFilter(
        step, choice(query, "state", STATES), query.get("kind", ""), query.get("text", "")
    )
    listing = reader.listing
    before = _place(query, "before")
    if before is not None:
        rows = listing.items_before(found.run, wanted, before=before, limit=PAGE)
        has_more = True
    else:
        start = number(query, "from", 1, least=1)
        after = _place(query, "after") or (step or 1, start - 2)
        rows = listing.items(found.run, wanted, after=after, limit=PAGE + 1)
        rows, has_more = rows[:PAGE], len(rows) > PAGE
    is_first = before is None and "after" not in query and "from" not in query
    return {
        "name": found.name,
        "run": found.run,
        "items": [dict(row) for row in rows],
        "after": _name(rows[-1]) if rows and has_more else None,
        "before": _name(rows[0]) if rows and not is_first else None,
        "filter": {key: query.get(key, "") for key in ("step", "state", "kind", "text")},
        **_counts(reader, found, step),
    }


def _counts(reader: Reader, found: Found, step: int | None) -> dict[str, Any]:
    """How many items there are in each state, by the counters of the run."""
    try:
        seen, problem = reader.progress(found)
    except (RunNotFound, StoreError) as error:
        return {"steps": [], "counts": None, "problem": str(error)}
    return {
        "steps": [{"number": one.number, "name": one.name} for one in seen.steps],
        "counts": _by_state(seen, step),
        "problem": problem,
    }


def _by_state(seen: Progress, step: int | None) -> dict[str, int]:
    steps = [one for one in seen.steps if step in (None, one.number)]
    ok, failed = sum(one.summary.ok for one in steps), sum(one.summary.failed for one in steps)
    total = sum(one.total for one in steps)
    return {"ok": ok, "failed": failed, "waiting": max(0, total - ok - failed), "total": total}


def _place(query: Query, name: str) -> tuple[int, int] | None:
    text = query.get(name)
    if text is None:
        return None
    step, separator, index = text.partition(".")
    if not separator:
        raise UsageError(f"{name} is STEP.INDEX, such as 1.99, not {text[:40]!r}")
    parts = {"step": step, "index": index}
    return number(parts, "step", 0), number(parts, "index", 0)


def _name(row: Any) -> str:
    return f"{row['step']}.{row['index']}"


def read_item(reader: Reader, name: str, query: Query) -> dict[str, Any]:
    """One item's whole story; raises RunNotFound with the nearest ids."""
    item = query.get("id")
    if item is None:
        raise UsageError("say which item: ?id=ITEM")
    found = reader.found(name)
    story = tell(reader.version(found), item)
    record = found.record
    return {
        "name": found.name,
        "run": found.run,
        "story": story_json(story),
        "task": _task(reader, story),
        "can_mark": record is not None and not is_read_only(record),
        "problem": reader.trouble,
    }


def _task(reader: Reader, story: Story) -> str | None:
    """The task that last ran the item, if Flower remembers it."""
    for step in reversed(story.steps):
        if step.outcome is not None and step.version == story.version:
            return reader.find_task(step.item_id, step.outcome.started_at)
    return None
