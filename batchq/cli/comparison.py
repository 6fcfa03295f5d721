"""A comparison in lines for people, and as values for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator

from batchq.cli.output import money, seconds_text, table
from batchq.cli.versions import time_text
from batchq.outcome import Json
from batchq.runs.compare import (
    ABSENT,
    TITLES,
    Absent,
    Change,
    Comparison,
    FieldChange,
    ItemChange,
    Side,
    id_ranges,
)

RULE = "=" * 70
MAX_PARTS = 20  # ids and ranges in a line
MAX_TEXT = 160  # characters of a value in a line
MAX_PAIR = 80  # characters of an old and a new value in one line
CONTEXT = 40  # characters before the first difference


def comparison_lines(seen: Comparison, *, detail: bool, only_changed: bool) -> Iterator[str]:
    """Writes a comparison down; with `only_changed` it leaves out all that is the same."""
    yield RULE
    yield f"COMPARING: {seen.pipeline}"
    yield f"{seen.left.version} vs {seen.right.version}"
    yield RULE
    yield ""
    yield "Version Info:"
    for side in (seen.left, seen.right):
        yield from _side_lines(side)
        yield ""
    if not only_changed:
        yield from _item_lines(seen)
        yield ""
    yield from _change_lines(seen, only_changed=only_changed)
    yield ""
    yield from _figure_lines(seen)
    if detail:
        yield ""
        yield "Details:"
        if not seen.changes.items:
            yield "  (no item differs)"
        for item in seen.changes.items:
            yield from _detail_lines(item)


def _side_lines(side: Side) -> Iterator[str]:
    yield f"  {side.version}:"
    yield f"    Created: {time_text(side.created_at)}"
    yield f"    Status: {side.status}"
    if side.notes:
        yield f"    Notes: {side.notes}"
    yield f"    Mode: {side.mode}"
    if side.base_version:
        yield f"    Base: {side.base_version}"
    if side.state != "completed":
        yield f"    State: {side.state}"
    yield f"    Duration: {seconds_text(side.duration_s)}"


def _item_lines(seen: Comparison) -> Iterator[str]:
    items, left, right = seen.items, seen.left.version, seen.right.version
    nothing_new = f"(none, merged with {left})" if seen.is_merged else "(none)"
    yield "Items:"
    yield f"  Total in {left}: {items.left_total:,}"
    yield f"  Total in {right}: {items.right_total:,}"
    yield f"  In both: {items.both:,}"
    yield f"  Only in {left}: {id_ranges(items.only_left, MAX_PARTS) or '(none)'}"
    yield f"  Only in {right}: {id_ranges(items.only_right, MAX_PARTS) or nothing_new}"


def _change_lines(seen: Comparison, *, only_changed: bool) -> Iterator[str]:
    merged = f" ({seen.right.version} merged with {seen.left.version})" if seen.is_merged else ""
    yield f"Changes in {seen.step}{merged}:"
    for change in Change:
        number = seen.changes.counts.get(change, 0)
        is_told = number or change in (Change.REGRESSED, Change.FIXED, Change.CHANGED)
        if (change is Change.SAME and only_changed) or not (is_told or change is Change.SAME):
            continue
        ids = id_ranges(seen.changes.ids(change), MAX_PARTS)
        yield f"  {TITLES[change]}: {number:,}" + (f"  ({ids})" if ids else "")
    if seen.changes.fields:
        yield ""
        yield "Fields:"
        rows = [(f"  {name}", f"changed in {n:,}") for name, n in seen.changes.fields.items()]
        yield from table(rows)


def _figure_lines(seen: Comparison) -> Iterator[str]:
    left, right = seen.left, seen.right
    totals = seen.items.left_total, seen.items.right_total
    tokens = [side.input_tokens + side.output_tokens for side in (left, right)]
    rows = [
        ("", left.version, right.version, ""),
        ("  Items", *(f"{total:,}" for total in totals), _share(*totals)),
        (
            "  Cost",
            money(left.cost_usd, left.unpriced_calls),
            money(right.cost_usd, right.unpriced_calls),
            _share(left.cost_usd, right.cost_usd),
        ),
        ("  Calls", f"{left.calls:,}", f"{right.calls:,}", _share(left.calls, right.calls)),
        ("  Tokens", f"{tokens[0]:,}", f"{tokens[1]:,}", _share(*tokens)),
        (
            "  Duration",
            f"{left.duration_s:.1f}s",
            f"{right.duration_s:.1f}s",
            _share(left.duration_s, right.duration_s),
        ),
    ]
    yield "What each took:"
    yield from table(rows, "<>>>")


def _share(old: float, new: float) -> str:
    if old == new:
        return "same"
    return f"{(new - old) / old:+.0%}" if old else "new"


def _detail_lines(item: ItemChange) -> Iterator[str]:
    yield f"  {item.item_id}  {item.change}"
    if item.old_error and item.old_error == item.new_error:
        yield f"    error: {shorten(item.new_error)}"
    else:
        if item.old_error:
            yield f"    error before: {shorten(item.old_error)}"
        if item.new_error:
            yield f"    error now: {shorten(item.new_error)}"
    if item.change is not Change.CHANGED:
        return
    for field in item.fields:
        old, new = excerpts(field)
        if len(old) + len(new) <= MAX_PAIR:
            yield f"    {field.field}: {old} -> {new}"
        else:
            yield f"    {field.field}:"
            yield f"      - {old}"
            yield f"      + {new}"


def excerpts(field: FieldChange, width: int = MAX_TEXT) -> tuple[str, str]:
    """Both values in one line each; long ones are cut so that their first difference is seen."""
    old, new = value_text(field.old), value_text(field.new)
    if len(old) <= width and len(new) <= width:
        return old, new
    pairs = enumerate(zip(old, new, strict=False))
    shared = next((at for at, (one, other) in pairs if one != other), min(len(old), len(new)))
    start = max(0, shared - CONTEXT)
    return _window(old, start, width), _window(new, start, width)


def value_text(value: Json | Absent) -> str:
    """A value as JSON; `(none)` for a field that is not there."""
    return "(none)" if value is ABSENT else json.dumps(value, ensure_ascii=False)


def shorten(text: str, width: int = MAX_TEXT) -> str:
    """A text in one line, cut at its end."""
    return _window(" ".join(text.split()), 0, width)


def _window(text: str, start: int, width: int) -> str:
    cut = text[start : start + width]
    return f"{'…' if start else ''}{cut}{'…' if start + width < len(text) else ''}"
