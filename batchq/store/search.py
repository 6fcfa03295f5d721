"""Finds one item among the frozen items of a version, without decoding those before it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from batchq.errors import StoreError
from batchq.outcome import Outcome
from batchq.plan import Item, Rerun, StepPlan
from batchq.store import basis, frozen
from batchq.store.folder import RunFolder
from batchq.store.rows import to_json

_HEAD = re.compile(rb'\{"id": ("(?:[^"\\]|\\.)*"), "index": (\d+), ')
"""How `frozen.freeze` begins a line."""

_PIECE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """An item, and how many stand before it in the step's frozen file."""

    step: int
    position: int
    item: Item


def find_id(folder: RunFolder, step: int, item_id: str) -> Place | None:
    """Finds an item by its id; None if the version does not run it in this step."""
    wanted = _id_texts(item_id)
    found = _skim(folder, step, wanted)
    # What is not found by a skim is looked for once more, line by line: one may be broken.
    return found or _find(folder, step, lambda id_text, _: id_text in wanted)


def find_index(folder: RunFolder, step: int, index: int) -> Place | None:
    """Finds an item by its index, under which it flows from step to step."""
    if folder.item_count(step) is None:
        return None
    # Where no item is left out, the index of an item is its place.
    here = frozen.read_batch(folder.files, step, index, 1)
    if here and here[0].index == index:
        return Place(step, index, here[0])
    wanted = str(index).encode()
    return _find(folder, step, lambda _, index_text: index_text == wanted)


def _name(id_text: bytes) -> str:
    return json.loads(id_text) if b"\\" in id_text else id_text[1:-1].decode()


def read_names(folder: RunFolder, step: int) -> Iterator[tuple[int, str]]:
    """Index and id of a step's frozen items, in order; none while they are not frozen."""
    for _, id_text, index_text, _ in _lines(folder, step):
        yield int(index_text), _name(id_text)


def taken_by(folder: RunFolder, rerun: Rerun, step: StepPlan) -> set[int]:
    """The indexes of the items that the version before a rerun has in a step."""
    number = step.spec.number

    def read(version: RunFolder) -> Iterator[Item]:
        return (Item(name, index, None) for index, name in read_names(version, number))

    return {item.index for item in basis.merged(basis.base_of(folder, rerun), read, number)}


def select_ids(folder: RunFolder, step: int, ids: Collection[str]) -> Iterator[Item]:
    """The items with these ids, also those that a rerun takes over, in input order.

    Only these are decoded.
    """
    wanted = {text for one in ids for text in _id_texts(one)}
    return _select(folder, step, lambda id_text, _: id_text in wanted)


def select_indexes(folder: RunFolder, step: int, indexes: Collection[int]) -> Iterator[Item]:
    """The items with these indexes, as `select_ids` gives them."""
    wanted = {str(one).encode() for one in indexes}
    return _select(folder, step, lambda _, index_text: index_text in wanted)


def _select(
    folder: RunFolder, step: int, is_wanted: Callable[[bytes, bytes], bool]
) -> Iterator[Item]:
    def read(version: RunFolder) -> Iterator[Item]:
        for _, id_text, index_text, line in _lines(version, step):
            if is_wanted(id_text, index_text):
                yield _item(line)

    return basis.merged(folder, read, step)


def read_outcome(folder: RunFolder, place: Place) -> Outcome | None:
    """Reads what became of an item out of its batch; None while it has not ended."""
    size = folder.read_plan().step(place.step).pacing.batch_size
    number = place.position // size
    is_collated = folder.has_batch(place.step, number)
    found = (folder.read_batch if is_collated else folder.parked)(place.step, number)
    return next((one for one in found if one.index == place.item.index), None)


def _find(folder: RunFolder, step: int, is_wanted: Callable[[bytes, bytes], bool]) -> Place | None:
    for position, id_text, index_text, line in _lines(folder, step):
        if is_wanted(id_text, index_text):
            return Place(step, position, _item(line))
    return None


def _skim(folder: RunFolder, step: int, id_texts: Collection[bytes]) -> Place | None:
    """Looks for an id in large pieces of the file: a million items take a moment, not seconds."""
    if folder.item_count(step) is None:
        return None
    heads = [b'{"id": %s, "index": ' % text for text in id_texts]
    before, rest = 0, b""
    with folder.files.reader(f"state/{step:02d}_items.jsonl") as file:
        while piece := file.read(_PIECE):
            lines, _, rest = (rest + piece).rpartition(b"\n")
            for head in heads:
                start = 0 if lines.startswith(head) else lines.find(b"\n" + head) + 1
                if start or lines.startswith(head):
                    line = lines[start:].partition(b"\n")[0]
                    return Place(step, before + lines.count(b"\n", 0, start), _item(line))
            before += lines.count(b"\n") + bool(lines)
    return None


def _id_texts(item_id: str) -> set[bytes]:
    """How an id may stand in a line, which is escaped as a whole if anything in it needs it."""
    return {to_json(item_id), json.dumps(item_id).encode()}


def _item(line: bytes) -> Item:
    row = json.loads(line)
    return Item(row["id"], row["index"], row["data"])


def _lines(folder: RunFolder, step: int) -> Iterator[tuple[int, bytes, bytes, bytes]]:
    path = f"state/{step:02d}_items.jsonl"
    if folder.item_count(step) is None:
        return
    with folder.files.reader(path) as file:
        for position, line in enumerate(file):
            head = _HEAD.match(line)
            if head is None:
                raise StoreError(
                    f"{folder.files.full(path)}:{position + 1}: broken. It was changed after the "
                    "submit: restore it, or submit a new version"
                )
            yield position, head[1], head[2], line
