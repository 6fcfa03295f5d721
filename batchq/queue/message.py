"""The message of one item: small, versioned JSON that carries the item's data along."""

from __future__ import annotations

from typing import Any

from batchq.plan import Item
from batchq.ports import ItemRef

RUN_ITEM = "batchq.run_item"
COLLATE_BATCH = "batchq.collate_batch"
MESSAGE_VERSION = 1


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


def decode_message(message: dict[str, Any]) -> tuple[ItemRef, Item]:
    """Reads what `encode_message` wrote; refuses any other version by name."""
    if message.get("v") != MESSAGE_VERSION:
        raise ValueError(
            f"a message of version {message.get('v')!r} came to a worker of batchq that reads "
            f"version {MESSAGE_VERSION}: run the same batchq everywhere"
        )
    ref = ItemRef(message["run"], message["step"], message["batch"], message["index"])
    return ref, Item(message["id"], message["index"], message["data"])
