"""Reads a version together with the one that it builds on."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from batchq.errors import RunNotFound, StoreError
from batchq.plan import Item, Rerun
from batchq.ranges import is_within
from batchq.store import frozen

if TYPE_CHECKING:
    from batchq.store.folder import RunFolder


class _Placed(Protocol):
    @property
    def index(self) -> int: ...


P = TypeVar("P", bound=_Placed)

BESIDE = "../"
"""Begins the place of a version that is in the same folder as the one that builds on it."""


def beside(folder: RunFolder, version: str) -> str:
    """Where another version of the same output folder is."""
    return f"{folder.url.rstrip('/').rpartition('/')[0]}/{version}"


def base_of(folder: RunFolder, rerun: Rerun) -> RunFolder:
    """Opens the version that `folder` builds on; one beside it is found wherever both are now.

    Raises RunNotFound if it is gone, StoreError if only a part of it is left.
    """
    is_beside = rerun.folder.startswith(BESIDE)
    base = type(folder).open(beside(folder, rerun.base) if is_beside else rerun.folder)
    if base.files.exists("plan.json"):
        return base
    if base.files.exists(""):
        raise StoreError(
            f"{folder.url} builds on {rerun.base}: {base.url} has no plan.json: a part of the "
            "version was deleted; restore it"
        )
    raise RunNotFound(
        f"{folder.url} builds on {rerun.base} in {base.url}, which is gone: restore it"
    )


def merged(folder: RunFolder, read: Callable[[RunFolder], Iterable[P]], step: int) -> Iterator[P]:
    """All that versions have of a step, in input order; newer ones stand in for what they replace.

    `read` gives what one version has itself. All versions are merged at once: one by one, a long
    line of reruns would cost every item a look in each of them.
    """
    layers: list[Iterable[P]] = []
    replaced: set[int] = set()
    kept: list[Sequence[tuple[int, int]]] = []
    while True:
        layers.append(_visible(read(folder), frozenset(replaced), kept))
        rerun = folder.rerun()
        if rerun is None or rerun.redo[step].kind == "all":
            return heapq.merge(*layers, key=lambda one: one.index)
        redo = rerun.redo[step]
        if redo.kind != "none":
            replaced.update(rerun.chosen.get(redo.root, ()))
        if step in rerun.kept:
            kept = [*kept, rerun.kept[step]]
        folder = base_of(folder, rerun)


def _visible(
    own: Iterable[P], replaced: Collection[int], kept: Sequence[Sequence[tuple[int, int]]]
) -> Iterable[P]:
    """What of a version is seen through those that build on it."""
    if not (replaced or kept):
        return own
    if not kept:
        return (one for one in own if one.index not in replaced)
    return (
        one
        for one in own
        if one.index not in replaced and all(is_within(one.index, ranges) for ranges in kept)
    )


def all_items(folder: RunFolder, step: int) -> Iterator[Item]:
    """The items of a step with an input of its own: those run here, and those taken over."""
    return merged(folder, lambda version: frozen.read_all(version.files, step), step)
