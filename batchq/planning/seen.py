"""Remembers which texts were seen, in 10 to 20 bytes each, however long they are."""

from __future__ import annotations

from array import array

_EMPTY = 0
_FIRST_SLOTS = 1 << 12


class Seen:
    """A set of texts that knows their hashes only: what it takes for seen may, once in 10 million
    times a million texts, be another one's hash.
    """  # noqa: D205 (one sentence)

    def __init__(self) -> None:
        self._slots = array("q", [_EMPTY]) * _FIRST_SLOTS
        self._count = 0

    def add(self, text: str) -> bool:
        """Adds a text; says whether it, or one with its hash, was there."""
        found = _place(self._slots, mark := hash(text) or 1)
        if self._slots[found] == mark:
            return True
        self._slots[found] = mark
        self._count += 1
        if self._count * 3 > len(self._slots) * 2:
            self._grow()
        return False

    def _grow(self) -> None:
        before = self._slots
        self._slots = array("q", [_EMPTY]) * (2 * len(before))
        for mark in before:
            if mark != _EMPTY:
                self._slots[_place(self._slots, mark)] = mark


def _place(slots: array[int], mark: int) -> int:
    """Where a mark is, or is to be put."""
    last = len(slots) - 1
    at = mark & last
    while slots[at] not in (_EMPTY, mark):
        at = (at + 1) & last
    return at
