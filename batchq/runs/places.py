"""Keeps jobs at the places that their names had in the version before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count

from batchq.plan import Item, Plan
from batchq.planning.planner import iter_items


def placed_items(plan: Plan, number: int, known: Mapping[str, int]) -> Iterator[Item]:
    """The items of a step, in the order of their indexes; `known` are those of a version before.

    A value added at the head of an axis moves every job of a matrix. What is taken over is found by
    its index, so jobs that are known keep theirs, and new ones come after all others. Items of an
    input stay where it has them: their index numbers what becomes of them.
    """
    items = iter_items(plan, number)
    step = plan.step(number)
    if step.input.experiment is None or not step.skip_existing:
        return items
    free = count(max(known.values(), default=-1) + 1)
    placed = (
        replace(item, index=known[item.id] if item.id in known else next(free)) for item in items
    )
    return iter(sorted(placed, key=lambda item: item.index))
