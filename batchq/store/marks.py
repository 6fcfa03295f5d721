"""What people think of single items, in their version: `marks.json`, or `marks/` in a store."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from batchq.errors import StoreError
from batchq.store.disk import DiskFiles
from batchq.store.faults import explained
from batchq.store.folder import RunFolder
from batchq.store.names import safe_name
from batchq.store.search import read_names

_PATH = "marks.json"
_PARTS = "marks"
"""Where an object store has them, an object each."""

_ITEMS_FILE = re.compile(r"(\d{2,})_items\.jsonl")


class Verdict(StrEnum):
    """What somebody thinks of an item."""

    GOOD = "good"  # leave it as it is
    BAD = "bad"  # `batchq rerun --marked bad` redoes it


@dataclass(frozen=True, slots=True)
class Mark:
    """A verdict on an item; `at` is UTC in ISO 8601."""

    verdict: Verdict
    note: str
    at: str


def read_marks(folder: RunFolder) -> dict[str, Mark]:
    """The marks that were made in this version, by item id."""
    found: dict[str, Mark] = {}
    paths = [_PATH] if folder.files.exists(_PATH) else []
    paths += [f"{_PARTS}/{name}" for name in folder.files.names(_PARTS)]
    for path, file in folder.files.readers(paths):
        found |= _decode(folder.files.full(path), file.read())
    return found


def _decode(path: str, text: bytes) -> dict[str, Mark]:
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise StoreError(
            f"{path}: broken: {place + ': ' if place else ''}{first['msg']}. What to do: mend the "
            "JSON, or remove the file and with it the marks"
        ) from error


def marks_of(folder: RunFolder) -> dict[str, Mark]:
    """The marks that hold in a version: its own, and those of its base for items not redone."""
    own = read_marks(folder)
    base = folder.base()
    if base is None:
        return own
    redone = set(_own_ids(folder))
    before = marks_of(base)
    return {item: mark for item, mark in before.items() if item not in redone} | own


def put_mark(folder: RunFolder, item_id: str, mark: Mark) -> None:
    """Adds or replaces the mark of one item; two callers at once both get theirs in.

    An object store has no locks, so there each item's mark is an object of its own.
    """
    if not isinstance(folder.files, DiskFiles):
        path, marks = f"{_PARTS}/{safe_name(item_id)}.json", {item_id: mark}
        folder.files.write(path, _encode(marks), durable=True)
        return
    with _held(folder.files):
        folder.files.write(_PATH, _encode(read_marks(folder) | {item_id: mark}), durable=True)


def _encode(marks: Mapping[str, Mark]) -> bytes:
    return _ADAPTER.dump_json(dict(marks), indent=2) + b"\n"


def _own_ids(folder: RunFolder) -> Iterator[str]:
    for name in folder.files.names("state"):
        if matched := _ITEMS_FILE.fullmatch(name):
            yield from (name for _, name in read_names(folder, int(matched[1])))


@contextmanager
def _held(files: DiskFiles) -> Iterator[None]:
    """Keeps other markers out."""
    path = Path(files.full("state/marks.lock"))
    with explained(str(path)):
        path.parent.mkdir(exist_ok=True)
        with open(path, "ab", opener=_open_no_link) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


_ADAPTER: TypeAdapter[dict[str, Mark]] = TypeAdapter(dict[str, Mark])
