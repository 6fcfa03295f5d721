"""Opens versions of a pipeline for reading, and finds items in them and in those before."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from itertools import islice

from batchq.engine.lineage import redo_steps
from batchq.errors import RunNotFound, StoreError, UsageError
from batchq.manifest.labels import FINAL
from batchq.plan import Plan
from batchq.progress import RunState
from batchq.records import RunRecord
from batchq.store import RunFolder
from batchq.store.presence import open_whole
from batchq.store.search import Place, find_id, find_index, read_names

_SHOWN_IDS = 5
_MOST_COMPARED = 20_000  # to compare a name with a million others takes half a minute


@dataclass(frozen=True)
class Version:
    """A version of a pipeline, open for reading."""

    pipeline: str
    version: str
    folder: RunFolder

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return f"{self.pipeline}@{self.version}"

    @property
    def plan(self) -> Plan:
        """What it ran."""
        return self.folder.read_plan()

    def chain(self) -> list[Version]:
        """This version, the one it builds on, and so on."""
        found = [self]
        while (rerun := found[-1].folder.rerun()) is not None:
            if any(one.version == rerun.base for one in found):
                raise StoreError(
                    f"{self.folder.url}: it builds on itself; restore state/rerun.json"
                )
            base = found[-1].folder.base()
            assert base is not None  # it has a rerun
            found.append(open_version(self.pipeline, rerun.base, base.url))
        return found


def open_version(pipeline: str, version: str, url: str) -> Version:
    """Opens a version's folder.

    Raises RunNotFound if it is gone, StoreError if only a part of it is left.
    """
    return Version(pipeline, version, open_whole(f"{pipeline}@{version}", url))


def require_item(version: Version, item_id: str) -> str:
    """Returns the name of an item that may be called by its id in any step.

    Raises RunNotFound with the nearest ids if the version has no such item.
    """
    chain = version.chain()
    place = find_item(chain, item_id)
    if place is None:
        raise RunNotFound(unknown_item(chain, item_id))
    return name_of(chain, place)


def name_of(chain: list[Version], place: Place) -> str:
    """The id that an item has in the step its input came from: the one that people know."""
    root = family_of(chain[0].plan, place.step)[0]
    first = find_at(chain, root, place.item.index)
    return first.item.id if first else place.item.id


def find_item(chain: list[Version], item_id: str) -> Place | None:
    """The item in the first step that knows it; in a newer version before an older one."""
    for step in chain[0].plan.steps:
        for version in chain:
            if found := find_id(version.folder, step.spec.number, item_id):
                return found
    return None


def find_at(chain: list[Version], step: int, index: int) -> Place | None:
    """The item that has this index in a step."""
    found = (find_index(version.folder, step, index) for version in chain)
    return next((place for place in found if place), None)


def family_of(plan: Plan, number: int) -> list[int]:
    """The steps in which an item of this step is the same item, under the same index."""
    every = {step.spec.number: [0] for step in plan.steps if step.input.source}
    redo = redo_steps(plan, every)
    if redo[number].kind != "some":
        return [number]
    return [one for one, it in redo.items() if it.kind == "some" and it.root == redo[number].root]


def unknown_item(chain: list[Version], item_id: str, number: int | None = None) -> str:
    """Says that there is no such item (in step `number`), and which ids are nearest."""
    steps = [number] if number else [step.spec.number for step in chain[0].plan.steps]
    names = (
        one for step in steps for version in chain for _, one in read_names(version.folder, step)
    )
    known = dict.fromkeys(islice(names, _MOST_COMPARED))
    near = difflib.get_close_matches(item_id, known, n=3, cutoff=0.5)
    shown = near or [*known][:_SHOWN_IDS]
    hint = f"{'nearest' if near else 'ids are such as'}: {', '.join(shown)}" if shown else ""
    place = f" in step {chain[0].plan.step(number).spec.name}" if number else ""
    return f"{chain[0].name} has no item {item_id}{place}" + (f"; {hint}" if hint else "")


def is_read_only(record: RunRecord) -> bool:
    """Whether a version is final. One that is not complete can still be gone on with."""
    return record.status == FINAL and record.state is RunState.COMPLETED


def require_changeable(record: RunRecord) -> None:
    """Raises UsageError if a version is final and so read-only."""
    if is_read_only(record):
        raise UsageError(
            f"{record.pipeline}@{record.version} is final, and final versions are read-only: "
            f"`batchq label {record.pipeline} {record.version} rc` opens it again"
        )
