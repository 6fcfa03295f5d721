"""The messages of an item and of its batch's end: small, versioned JSON.

That of an item carries its data along. How messages are written and signed is in `serializer.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchq.plan import Item
from batchq.ports import ItemRef
from batchq.version import __version__

RUN_ITEM = "batchq.run_item"
COLLATE_BATCH = "batchq.collate_batch"
MESSAGE_VERSION = 1
_BATCH_FIELDS = {"run": str, "step": int, "batch": int}
_FIELDS = {**_BATCH_FIELDS, "index": int, "id": str}


def encode_message(ref: ItemRef, item: Item) -> dict[str, Any]:
    """Writes an item and its place down."""
    return {
        "v": MESSAGE_VERSION,
        "run": ref.run,
        "step": ref.step,
        "batch": ref.batch,
        "index": item.index,
        "id": item.id,
        "data": item.data,
    }


class MessageRefused(ValueError):
    """Raised for a message that is not ours, or of a version that this batchq does not read.

    Its item is sent again by the coordinator, in the coordinator's version.
    """


def decode_message(message: Any) -> tuple[ItemRef, Item]:
    """Reads what `encode_message` wrote; raises MessageRefused that names what is wrong."""
    fields = _checked(message, _FIELDS)
    if "data" not in fields:
        raise MessageRefused("a message without data")
    ref = ItemRef(fields["run"], fields["step"], fields["batch"], fields["index"])
    return ref, Item(fields["id"], fields["index"], fields["data"])


def encode_end(run: str, step: int, batch: int) -> dict[str, Any]:
    """Writes down which batch has ended."""
    return {"v": MESSAGE_VERSION, "run": run, "step": step, "batch": batch}


def decode_end(*message: Any) -> tuple[str, int, int]:
    """Reads what `encode_end` wrote; raises MessageRefused that names what is wrong.

    It takes all that a message holds: one of an older batchq had three parts.
    """
    fields = _checked(message[0] if len(message) == 1 else list(message), _BATCH_FIELDS)
    if not fields.keys() <= {"v", *_BATCH_FIELDS}:
        raise MessageRefused("the message of an item where that of a batch's end should be")
    return fields["run"], fields["step"], fields["batch"]


def _checked(message: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise MessageRefused(f"a message that is no mapping but {type(message).__name__}")
    if message.get("v") != MESSAGE_VERSION:
        raise MessageRefused(
            f"a message of version {str(message.get('v'))[:20]!r} came to a process of batchq "
            f"{__version__}, which reads version {MESSAGE_VERSION}: run the same batchq everywhere"
        )
    for name, kind in kinds.items():
        if type(message.get(name)) is not kind:
            raise MessageRefused(
                f"a message whose {name} is {type(message.get(name)).__name__}, not {kind.__name__}"
            )
    return message
