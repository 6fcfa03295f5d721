"""What people look at over many items: one version against another, and what failed."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from batchq.errors import RunNotFound, UsageError
from batchq.outcome import Outcome
from batchq.plan import Plan
from batchq.report.failures import FailureGroup, failure_of, group_failures
from batchq.runs.compare import (
    Change,
    Comparison,
    ItemChange,
    ItemSets,
    Side,
    compare_item,
    pair_items,
    sum_up,
)
from batchq.runs.versions import Version, family_of, find_item, name_of, unknown_item
from batchq.store.lines import Line
from batchq.store.search import read_names


def compare_versions(
    left: Version,
    right: Version,
    *,
    step: str | None = None,
    only: Collection[str] | None = None,
    keep_values: bool = True,
) -> Comparison:
    """Compares two versions of a pipeline in one step.

    If none is named: the last that both have and that has an outcome for each item.

    Items are called by their ids in the step that their input came from: those that people know,
    and that stay when the input grows. `only` may name them by those of other steps too.

    Raises UsageError if they have no such step in common, RunNotFound for an item of neither.
    """
    name = _common_step(left, right, step)
    number, right_number = (_number_of(one.plan, name) for one in (left, right))
    root, right_root = _root_of(left.plan, number), _root_of(right.plan, right_number)
    if only is not None:
        only = _root_ids([(left.chain(), root), (right.chain(), right_root)], only)
    ids = [[*_own_ids(left, root, only)], [*_own_ids(right, right_root, only)]]
    pairs = pair_items(
        _named_by_root(left, number, root), _named_by_root(right, right_number, right_root)
    )
    changes = sum_up(
        (_change_of(*pair) for pair in pairs if only is None or _name_of(*pair) in only),
        keep_values=keep_values,
    )
    return Comparison(
        pipeline=left.pipeline,
        step=name,
        left=_side(left),
        right=_side(right),
        items=_item_sets(*ids),
        changes=changes,
        is_merged=left.version in [one.version for one in right.chain()[1:]],
    )


def failures_of(version: Version) -> list[FailureGroup]:
    """Groups what failed in a version, over all its steps."""
    return group_failures(
        failure
        for step in version.plan.steps
        for line in version.folder.failed_lines(step.spec.number)
        if (failure := failure_of(line.outcome, step.spec.name))
    )


def _common_step(left: Version, right: Version, wanted: str | None) -> str:
    names = [[step.spec.name for step in one.plan.steps] for one in (left, right)]
    common = [name for name in names[0] if name in names[1]]
    if wanted is None:
        if not common:
            raise UsageError(
                f"{left.name} and {right.name} have no step in common: {', '.join(names[0])} "
                f"and {', '.join(names[1])}"
            )
        single = [one for one in common if _has_single_items(left, one)]
        return (single or common)[-1]
    if wanted not in common:
        near = difflib.get_close_matches(wanted, common, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"no step {wanted} in both versions; {hint}They have: {', '.join(common) or 'none'}"
        )
    return wanted


def _has_single_items(version: Version, name: str) -> bool:
    """Whether a step has an outcome for each item, and not one for all of them."""
    return not version.plan.step(_number_of(version.plan, name)).input.whole


def _number_of(plan: Plan, name: str) -> int:
    return next(step.spec.number for step in plan.steps if step.spec.name == name)


def _root_of(plan: Plan, number: int) -> int:
    """The step whose ids name the items of this one."""
    return family_of(plan, number)[0]


def _root_ids(sides: list[tuple[list[Version], int]], ids: Collection[str]) -> set[str]:
    """Finds items by their ids in any step; raises RunNotFound for one that neither side has."""
    found: set[str] = set()
    for item_id in ids:
        names = set()
        for chain, root in sides:
            place = find_item(chain, item_id)
            if place and _root_of(chain[0].plan, place.step) == root:
                names.add(name_of(chain, place))
        if not names:
            raise RunNotFound(unknown_item(sides[1][0], item_id, sides[1][1]))
        found |= names
    return found


def _own_ids(version: Version, root: int, only: Collection[str] | None) -> Iterator[str]:
    names = (name for _, name in read_names(version.folder, root))
    return (name for name in names if only is None or name in only)


def _named_by_root(version: Version, number: int, root: int) -> Iterator[Line]:
    """What became of a step's items, called by the ids of the step that their input came from."""
    lines = version.folder.merged_lines(number)
    if number == root:
        return lines
    names = dict(read_names(version.chain()[-1].folder, root))
    return (replace(one, item_id=names.get(one.index, one.item_id)) for one in lines)


def _name_of(old: Line | None, new: Line | None) -> str:
    one = new or old
    assert one is not None
    return one.item_id


def _change_of(old: Line | None, new: Line | None) -> ItemChange:
    """Compares one item; decodes it only if its output may be another one."""
    if old is not None and new is not None and old.has_same_output(new):
        return ItemChange(new.item_id, new.index, Change.SAME)
    return compare_item(_outcome_of(old), _outcome_of(new))


def _outcome_of(line: Line | None) -> Outcome | None:
    return None if line is None else replace(line.outcome, item_id=line.item_id)


def _item_sets(left: list[str], right: list[str]) -> ItemSets:
    of_left, of_right = set(left), set(right)
    return ItemSets(
        left_total=len(left),
        right_total=len(right),
        both=len(of_left & of_right),
        only_left=tuple(one for one in left if one not in of_right),
        only_right=tuple(one for one in right if one not in of_left),
    )


def _side(version: Version) -> Side:
    told = version.folder.read_metadata()
    totals: Mapping[str, Any] = told.totals
    return Side(
        version=version.version,
        created_at=told.timestamp,
        status=told.pipeline_status,
        notes=told.notes,
        mode=told.mode,
        base_version=told.base_version or "",
        state=told.status,
        duration_s=told.duration_seconds,
        items=int(_number(totals, "items")),
        failed=int(_number(totals, "failed")),
        calls=int(_number(totals, "calls")),
        input_tokens=int(_number(totals, "input_tokens")),
        output_tokens=int(_number(totals, "output_tokens")),
        cost_usd=_number(totals, "cost_usd"),
        unpriced_calls=int(_number(totals, "unpriced_calls")),
    )


def _number(totals: Mapping[str, Any], key: str) -> float:
    """A figure of the metadata, which people may have edited."""
    value = totals.get(key, 0)
    return value if isinstance(value, int | float) else 0
