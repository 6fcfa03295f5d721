"""Rising numbers as ranges, each up to its second number: a million indexes are often one."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

Ranges = tuple[tuple[int, int], ...]


def ranges(indexes: Iterable[int]) -> Ranges:
    """The ranges of rising numbers."""
    found: list[tuple[int, int]] = []
    for index in indexes:
        if found and found[-1][1] == index:
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return tuple(found)


def is_within(index: int, found: Sequence[tuple[int, int]]) -> bool:
    """Whether a number is in one of the ranges."""
    place = bisect.bisect_right(found, index, key=lambda one: one[0]) - 1
    return place >= 0 and index < found[place][1]
