"""Reads a version together with the one that it builds on."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from batchq.errors import StoreError
from batchq.outcome import Outcome
from batchq.plan import Item, Rerun
from batchq.store import frozen

if TYPE_CHECKING:
    from batchq.store.folder import RunFolder


class _Placed(Protocol):
    @property
    def index(self) -> int: ...


P = TypeVar("P", bound=_Placed)


def base_of(folder: RunFolder, rerun: Rerun) -> RunFolder:
    """Opens the version that `folder` builds on.

    It is looked for beside `folder` first, so that an output folder may be moved or copied as a
    whole; then where it was. Raises StoreError if it is in neither place.
    """
    beside = f"{folder.url.rstrip('/').rpartition('/')[0]}/{rerun.base}"
    places = dict.fromkeys((beside, rerun.folder))
    for place in places:
        base = type(folder).open(place)
        if base.files.exists("plan.json"):
            return base
    raise StoreError(
        f"{folder.url} builds on {rerun.base}, which is not there (looked for in "
        f"{' and '.join(places)}): restore it"
    )


def merged(folder: RunFolder, step: int) -> Iterator[Outcome]:
    """All outcomes of a step in input order; those of `folder` stand in for those they replace."""
    rerun = folder.rerun()
    own = folder.outcomes(step)
    if rerun is None or rerun.redo[step].kind == "all":
        return own
    return _joined(rerun, step, base_of(folder, rerun).merged(step), own)


def all_items(folder: RunFolder, step: int) -> Iterator[Item]:
    """The items of a step with an input of its own: those run here, and those taken over."""
    own = frozen.read_all(folder.files, step)
    rerun = folder.rerun()
    if rerun is None:
        return own
    return _joined(rerun, step, base_of(folder, rerun).all_items(step), own)


def _joined(rerun: Rerun, step: int, before: Iterable[P], own: Iterable[P]) -> Iterator[P]:
    redo = rerun.redo[step]
    chosen: Collection[int] = ()
    if redo.kind != "none":
        chosen = set(rerun.chosen.get(redo.root, ()))
    counts = _within(rerun.kept.get(step))
    taken = (one for one in before if one.index not in chosen and counts(one.index))
    return heapq.merge(taken, own, key=lambda one: one.index)


def _within(ranges: Sequence[tuple[int, int]] | None) -> Callable[[int], bool]:
    """Says of rising indexes whether they are in one of the ranges; None is everywhere."""
    if ranges is None:
        return lambda _: True
    position = 0

    def is_within(index: int) -> bool:
        nonlocal position
        while position < len(ranges) and index >= ranges[position][1]:
            position += 1
        return position < len(ranges) and index >= ranges[position][0]

    return is_within
