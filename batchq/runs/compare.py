"""What became of the items of one version in another: pairs outcomes and says what changed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from itertools import zip_longest
from typing import Protocol, TypeVar

from batchq.outcome import Json, Outcome

WHOLE = "(output)"
"""The field of an output that is no mapping."""

_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]{1,18})")
_MIN_RANGE = 3  # `4001, 4002` reads better than `4001-4002`


class Named(Protocol):
    """What is paired: an outcome, or its line in a record."""

    @property
    def item_id(self) -> str:
        """The item's id."""
        ...


N = TypeVar("N", bound=Named)


class Absent(Enum):
    """Stands for the value of a field that is not there, which null is not."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


class Change(StrEnum):
    """What became of an item; in the order that people want to see them in."""

    REGRESSED = "regressed"  # ok, then failed
    FIXED = "fixed"  # failed, then ok
    CHANGED = "changed"  # ok in both, with another output
    FAILED = "failed"  # failed in both
    ADDED = "added"  # only in the second version
    REMOVED = "removed"  # only in the first one
    SAME = "same"  # ok in both, with the same output


TITLES = {
    Change.REGRESSED: "Regressed (ok -> failed)",
    Change.FIXED: "Fixed (failed -> ok)",
    Change.CHANGED: "Changed",
    Change.FAILED: "Failed in both",
    Change.ADDED: "Added",
    Change.REMOVED: "Removed",
    Change.SAME: "Same",
}
"""What people call the changes."""

_ORDER = {change: place for place, change in enumerate(Change)}


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that differs; nested ones are named as in prompts, `a__b`."""

    field: str
    old: Json | Absent
    new: Json | Absent


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One item that is not the same; the errors are those of the side that failed."""

    item_id: str
    index: int
    change: Change
    fields: tuple[FieldChange, ...] = ()
    old_error: str = ""
    new_error: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions, as people know it, and what making it took."""

    version: str
    created_at: str
    status: str
    notes: str
    mode: str
    base_version: str
    state: str
    duration_s: float
    items: int = 0
    failed: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    unpriced_calls: int = 0


@dataclass(frozen=True, slots=True)
class ItemSets:
    """Which items each version ran itself; a rerun's collated file holds more than these."""

    left_total: int
    right_total: int
    both: int
    only_left: tuple[str, ...]
    only_right: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """How two versions of a step differ. `items` has all but the same, regressions first."""

    counts: Mapping[Change, int]
    fields: Mapping[str, int]
    items: tuple[ItemChange, ...]

    def ids(self, change: Change) -> list[str]:
        """The items that a change befell, in input order; those that are the same are not kept."""
        return [one.item_id for one in self.items if one.change is change]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions of a pipeline. `is_merged` says that the right one builds on the left one."""

    pipeline: str
    step: str
    left: Side
    right: Side
    items: ItemSets
    changes: Changes
    is_merged: bool = False


def sum_up(changes: Iterable[ItemChange], *, keep_values: bool = True) -> Changes:
    """Counts what became of a step's items; holds no more than the items that differ.

    `keep_values` says whether these keep the fields that differ, which may be large.
    """
    counts: Counter[Change] = Counter()
    fields: Counter[str] = Counter()
    changed: list[ItemChange] = []
    for item in changes:
        counts[item.change] += 1
        if item.change is Change.CHANGED:
            fields.update(change.field for change in item.fields)
        if item.change is not Change.SAME:
            changed.append(item if keep_values else replace(item, fields=()))
    changed.sort(key=lambda item: (_ORDER[item.change], item.index, item.item_id))
    return Changes(dict(counts), dict(fields.most_common()), tuple(changed))


def pair_items(left: Iterable[N], right: Iterable[N]) -> Iterator[tuple[N | None, N | None]]:
    """Pairs what both versions have of a step by item id, in one pass; the lonely ones come last.

    One waits in memory until its partner comes: none does where both sides have the same items in
    the same order.
    """
    waiting: tuple[dict[str, N], dict[str, N]] = ({}, {})
    for old, new in zip_longest(left, right):
        if old is not None and new is not None and old.item_id == new.item_id:
            yield old, new
            continue
        if old is not None:
            if partner := waiting[1].pop(old.item_id, None):
                yield old, partner
            else:
                waiting[0][old.item_id] = old
        if new is not None:
            if partner := waiting[0].pop(new.item_id, None):
                yield partner, new
            else:
                waiting[1][new.item_id] = new
    yield from ((old, None) for old in waiting[0].values())
    yield from ((None, new) for new in waiting[1].values())


def compare_item(old: Outcome | None, new: Outcome | None) -> ItemChange:
    """Compares one item; at least one side has it."""
    one = new or old
    assert one is not None
    fields: tuple[FieldChange, ...] = ()
    if old is None:
        change = Change.ADDED
    elif new is None:
        change = Change.REMOVED
    elif old.is_ok and new.is_ok:
        fields = compare_values(old.output, new.output)
        change = Change.CHANGED if fields else Change.SAME
    elif old.is_ok:
        change = Change.REGRESSED
    else:
        change = Change.FIXED if new.is_ok else Change.FAILED
    return ItemChange(one.item_id, one.index, change, fields, _error_of(old), _error_of(new))


def compare_values(old: Json, new: Json) -> tuple[FieldChange, ...]:
    """Lists the leaves that differ, in the order of the newer output, then those that are gone."""
    if old == new and _is_same_kind(old, new):
        return ()
    before, after = dict(_leaves("", old)), dict(_leaves("", new))
    names = [*after, *(name for name in before if name not in after)]
    changes = (
        FieldChange(name, before.get(name, ABSENT), after.get(name, ABSENT)) for name in names
    )
    found = tuple(one for one in changes if not _is_same_kind(one.old, one.new))
    # A field that is literally called `a__b` can hide `b` inside `a`.
    return found or (FieldChange(WHOLE, old, new),)


def id_ranges(ids: Sequence[str], most: int | None = None) -> str:
    """Writes ids down in the order given, runs of numbers as ranges: `4001, 4003-4014`.

    Ids such as `item_3` make ranges with two dots, `item_3..item_14`. After `most` parts the rest
    is counted.
    """
    parts: list[str] = []
    told = 0
    for run in _runs(ids):
        if most is not None and len(parts) >= most:
            return f"{', '.join(parts)} and {len(ids) - told:,} more"
        told += len(run)
        if len(run) < _MIN_RANGE:
            parts += run
        else:
            parts.append(f"{run[0]}{'-' if run[0].isdigit() else '..'}{run[-1]}")
    return ", ".join(parts)


def _runs(ids: Iterable[str]) -> Iterator[list[str]]:
    """Cuts ids into runs of which each is the one before plus one."""
    run: list[str] = []
    for item_id in ids:
        if run and _successor(run[-1]) != item_id:
            yield from ([run] if len(run) >= _MIN_RANGE else [[one] for one in run])
            run = []
        run.append(item_id)
    if run:
        yield from ([run] if len(run) >= _MIN_RANGE else [[one] for one in run])


def _successor(item_id: str) -> str | None:
    matched = _NUMBERED.fullmatch(item_id)
    if matched is None:
        return None
    digits = matched["number"]
    return f"{matched['prefix']}{int(digits) + 1:0{len(digits)}d}"


def _leaves(prefix: str, value: Json) -> Iterator[tuple[str, Json]]:
    if not isinstance(value, Mapping) or (prefix and not value):
        yield prefix or WHOLE, value
        return
    for key, inner in value.items():
        yield from _leaves(f"{prefix}__{key}" if prefix else str(key), inner)


def _is_same_kind(old: Json | Absent, new: Json | Absent) -> bool:
    """Whether two values are equal in JSON's sense, where `true` is not 1 and 1 is 1.0."""
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(_is_same_kind(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_is_same_kind, old, new))
    return bool(old == new)


def _error_of(outcome: Outcome | None) -> str:
    if outcome is None or outcome.error is None:
        return ""
    return f"{outcome.error.kind}: {outcome.error.message}"
