"""Chooses items so that what they hold comes near a reference: guided sampling. Pure.

For each field that is looked at, a value is lacking as long as there is less of it than its share
in the reference asks for. What a choice fills of that is monotone and submodular, so to take the
item that fills most, again and again, is never worse than 1 - 1/e of the best choice there is; and
one less the share that is filled is the distance of the two distributions (total variation).
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Values = Mapping[str, Mapping[str, int]]
"""How often which values are there, by field."""


@dataclass(frozen=True, slots=True)
class Guide:
    """What a choice is guided by.

    `goal` holds the share of each value in the reference, by field; `there` what is counted as
    chosen already.
    """

    goal: Mapping[str, Mapping[str, float]]
    there: Values = field(default_factory=dict)

    @property
    def by(self) -> tuple[str, ...]:
        """The fields that are looked at."""
        return tuple(self.goal)


def pool_size(n: int) -> int:
    """How many items are looked at to choose n: more are drawn from at random."""
    return max(10_000, 50 * n)


def shares(counts: Mapping[str, float]) -> dict[str, float]:
    """Counts as shares of their sum."""
    total = sum(counts.values())
    return {value: count / total for value, count in counts.items()} if total else {}


def distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """How far two distributions are apart, from 0 to 1: half of what their shares differ by.

    Nothing at all is as far from anything as can be.
    """
    first, second = shares(one), shares(other)
    if not first or not second:
        return 0.0 if first == second else 1.0
    return sum(abs(first.get(key, 0) - second.get(key, 0)) for key in {*first, *second}) / 2


def choose(pool: Sequence[Values], n: int, guide: Guide, seed: int) -> list[int]:
    """The places in the pool of n items, best first; `seed` decides between equals.

    All of them where there are no more than n.
    """
    lacking, worth = _lacking(pool, n, guide)

    def gain(values: Values) -> float:
        return sum(
            worth[name] * min(count, lacking[name].get(value, 0.0))
            for name in worth
            for value, count in values.get(name, {}).items()
        )

    rng = random.Random(seed)
    heap = [(-gain(values), rng.random(), place) for place, values in enumerate(pool)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < n:
        before, tie, place = heap[0]
        now = -gain(pool[place])
        if now > before + 1e-15:  # others took of what it would have filled: look at it later
            heapq.heapreplace(heap, (now, tie, place))
            continue
        heapq.heappop(heap)
        chosen.append(place)
        for name, wanted in lacking.items():
            for value, count in pool[place].get(name, {}).items():
                if value in wanted:
                    wanted[value] = max(0.0, wanted[value] - count)
    return chosen


def _lacking(
    pool: Sequence[Values], n: int, guide: Guide
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """What is wanted of each value beyond what is there, and what one of a field's values counts.

    A field's goal is for all that will be there when n items of usual length are chosen.
    """
    lacking: dict[str, dict[str, float]] = {}
    worth: dict[str, float] = {}
    for name, goal in guide.goal.items():
        there = guide.there.get(name, {})
        offered = sum(sum(values.get(name, {}).values()) for values in pool)
        total = sum(there.values()) + min(n, len(pool)) * offered / max(1, len(pool))
        worth[name] = 1 / total if total else 0.0
        lacking[name] = {
            value: max(0.0, share * total - there.get(value, 0)) for value, share in goal.items()
        }
    return lacking, worth


def tally(rows: Sequence[Values]) -> dict[str, Counter[str]]:
    """Adds up what several items hold."""
    total: dict[str, Counter[str]] = {}
    for row in rows:
        for name, counts in row.items():
            total.setdefault(name, Counter()).update(counts)
    return total
