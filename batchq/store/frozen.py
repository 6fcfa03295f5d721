"""A step's items, written down once, and read batch by batch without those before."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic_core import from_json

from batchq.errors import PlanError, StoreError
from batchq.plan import Item
from batchq.store.files import Files
from batchq.store.rows import to_json

MAX_ITEM_BYTES = 16 * 1024 * 1024
"""An item travels in one message, which has a bound, too."""
_OFFSET_BYTES = 8


def freeze(files: Files, step: int, items: Iterable[Item]) -> int:
    """Writes a step's items unless they are there; returns how many there are.

    The items come first, then the places where each begins: these are read off the file that is
    there, so they fit it whoever wrote it, and their presence means that the items are frozen.
    """
    frozen = count(files, step)
    if frozen is not None:
        return frozen
    with files.writer(_items_path(step), durable=True, only_new=True) as file:
        for item in items:
            line = {"id": item.id, "index": item.index, "data": item.data}
            try:
                text = to_json(line)
            except (TypeError, ValueError, RecursionError) as error:
                raise PlanError(f"step {step}: item {item.id!r} is not JSON: {error}") from error
            if len(text) > MAX_ITEM_BYTES:
                raise PlanError(
                    f"step {step}: item {item.id[:200]!r} has {len(text):,} bytes, "
                    f"{MAX_ITEM_BYTES:,} are the most: put what is large into a file, and its path "
                    "into the item"
                )
            file.write(text + b"\n")
    offsets = array("Q", [0])
    with files.reader(_items_path(step)) as file:
        for text in file:
            offsets.append(offsets[-1] + len(text))
    if sys.byteorder == "big":
        offsets.byteswap()
    files.write(_offsets_path(step), offsets.tobytes(), durable=True)
    return len(offsets) - 1


def count(files: Files, step: int) -> int | None:
    """How many items a step has; None while they are not frozen."""
    size = files.size(_offsets_path(step))
    return None if size is None else size // _OFFSET_BYTES - 1


def read_batch(files: Files, step: int, number: int, size: int) -> Sequence[Item]:
    """Reads the items of a batch with three short reads; empty beyond the last one."""
    total = count(files, step)
    if total is None:
        raise StoreError(
            f"{files.full(_items_path(step))}: the items of step {step} are not frozen"
        )
    first = min(number * size, total)
    last = min(first + size, total)
    if first == last:
        return []
    places = files.read_range(
        _offsets_path(step), first * _OFFSET_BYTES, (last + 1) * _OFFSET_BYTES
    )
    start, end = (
        int.from_bytes(places[:_OFFSET_BYTES], "little"),
        int.from_bytes(places[-_OFFSET_BYTES:], "little"),
    )
    lines = files.read_range(_items_path(step), start, end).split(b"\n")[:-1]
    try:
        rows = [_read(line) for line in lines]
        items = [Item(row["id"], row["index"], row["data"]) for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise _broken(files, step, str(error)) from error
    if len(items) != last - first:
        raise _broken(files, step, f"{len(items)} items where {last - first} should be")
    return items


def read_all(files: Files, step: int) -> Iterator[Item]:
    """Reads all items of a step, one by one."""
    with files.reader(_items_path(step)) as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                yield Item(row["id"], row["index"], row["data"])
            except (ValueError, KeyError, TypeError) as error:
                raise _broken(files, step, f"line {number}: {error}") from error


def forget(files: Files, step: int) -> None:
    """Removes a step's items, so that others can be frozen."""
    files.remove(_offsets_path(step))
    files.remove(_items_path(step))


def _read(line: bytes) -> Any:
    try:
        return from_json(line)
    except ValueError:  # broken, or half of a surrogate pair, which that does not take
        return json.loads(line)


def _broken(files: Files, step: int, reason: str) -> StoreError:
    return StoreError(
        f"{files.full(_items_path(step))}: broken ({reason}). It was changed after the submit: "
        "restore it, or submit a new version"
    )


def _items_path(step: int) -> str:
    return f"state/{step:02d}_items.jsonl"


def _offsets_path(step: int) -> str:
    return f"state/{step:02d}_offsets.bin"
