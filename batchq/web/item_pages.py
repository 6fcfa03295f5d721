"""The pages of a run's items, and of one item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchq.actions.asjson import story_json
from batchq.actions.lookup import Found
from batchq.errors import RunNotFound, StoreError, UsageError
from batchq.progress import Progress
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
        page = listing.items_before(found.run, wanted, before=before, limit=PAGE)
        rows, last, first = page.rows, _name(page.rows, -1), _name(page.rows, 0)
        first = _place_name(page.looked_to) or first
    else:
        start = number(query, "from", 1, least=1)
        after = _place(query, "after") or (step or 1, start - 2)
        page = listing.items(found.run, wanted, after=after, limit=PAGE + 1)
        rows, first = page.rows[:PAGE], _name(page.rows, 0)
        last = _place_name(page.looked_to) or (_name(rows, -1) if len(page.rows) > PAGE else None)
    is_first = before is None and "after" not in query and "from" not in query
    return {
        "name": found.name,
        "run": found.run,
        "items": [dict(row) for row in rows],
        "after": last,
        "before": None if is_first else first,
        "looked_to": _place_name(page.looked_to),
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


def _name(rows: Sequence[Mapping[str, Any]], at: int) -> str | None:
    return _place_name((rows[at]["step"], rows[at]["index"])) if rows else None


def _place_name(place: tuple[int, int] | None) -> str | None:
    return None if place is None else f"{place[0]}.{place[1]}"


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
