"""The tasks: an item, the end of its batch, a look at a run. Each body decodes, calls, encodes."""

from __future__ import annotations

from typing import Any

from celery import Task, shared_task

from batchq.plan import Item
from batchq.ports import Claim, ItemRef, RunState
from batchq.queue import heart
from batchq.queue.advance import advance
from batchq.runner import run_item

MESSAGE_VERSION = 1
HELD_AGAIN_S = 5


@shared_task(name="batchq.run_item", bind=True, ignore_result=True)  # type: ignore[untyped-decorator]
def run_item_task(self: Task[Any, Any], message: dict[str, Any]) -> str:
    """Runs one item; returns a receipt of one word. Never raises for reasons of the item."""
    services = self.app.services  # type: ignore[attr-defined]
    ref, item = decode_message(message)
    spec = services.ledger.spec(ref.run, ref.step)
    if spec is None:
        return Claim.DONE.value  # the run is over and forgotten
    receipt = run_item(ref, item, spec, services.ledger, heart.owner(services), services.tools)
    if receipt.halt:
        services.ledger.set_state(ref.run, RunState.PAUSED, receipt.halt)
    if receipt.claim is Claim.HELD:
        # Its holder counts it. A part from us now would end the chord too early, none at all
        # would leave the chord open if the holder belongs to an earlier one.
        raise self.retry(countdown=HELD_AGAIN_S, max_retries=None)
    return receipt.claim.value


@shared_task(name="batchq.collate_batch", bind=True, ignore_result=True)  # type: ignore[untyped-decorator]
def collate_batch_task(self: Task[Any, Any], run: str, step: int, batch: int) -> None:
    """Writes a batch's outcomes to the run folder and goes on with the run."""
    advance(run, self.app, collate=(step, batch))


@shared_task(name="batchq.advance_run", bind=True, ignore_result=True)  # type: ignore[untyped-decorator]
def advance_run_task(self: Task[Any, Any], run: str) -> None:
    """Looks at a run and does what is next: batches, the end of a step, the end of the run."""
    advance(run, self.app)


def encode_message(ref: ItemRef, item: Item) -> dict[str, Any]:
    """The message of one item; its data travels along."""
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
    """Reads what `encode_message` made; refuses any other version by name."""
    if message.get("v") != MESSAGE_VERSION:
        raise ValueError(
            f"a message of version {message.get('v')!r} came to a worker of batchq that reads "
            f"version {MESSAGE_VERSION}: run the same batchq everywhere"
        )
    ref = ItemRef(message["run"], message["step"], message["batch"], message["index"])
    return ref, Item(message["id"], message["index"], message["data"])
