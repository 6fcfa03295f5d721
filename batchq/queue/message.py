"""The message of one item: small, versioned JSON that carries the item's data along."""

from __future__ import annotations

from typing import Any

from batchq.plan import Item
from batchq.ports import ItemRef
from batchq.version import __version__

RUN_ITEM = "batchq.run_item"
COLLATE_BATCH = "batchq.collate_batch"
MESSAGE_VERSION = 1
_FIELDS = {"run": str, "step": int, "batch": int, "index": int, "id": str}


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
    if not isinstance(message, dict):
        raise MessageRefused(f"a message that is no mapping but {type(message).__name__}")
    if message.get("v") != MESSAGE_VERSION:
        raise MessageRefused(
            f"a message of version {str(message.get('v'))[:20]!r} came to a worker of batchq "
            f"{__version__}, which reads version {MESSAGE_VERSION}: run the same batchq everywhere"
        )
    for name, kind in _FIELDS.items():
        if type(message.get(name)) is not kind:
            raise MessageRefused(
                f"a message whose {name} is {type(message.get(name)).__name__}, not {kind.__name__}"
            )
    if "data" not in message:
        raise MessageRefused("a message without data")
    ref = ItemRef(message["run"], message["step"], message["batch"], message["index"])
    return ref, Item(message["id"], message["index"], message["data"])
