"""The tasks: an item, and the end of its batch. Each body decodes, calls, encodes."""

from __future__ import annotations

import logging
import time
from typing import Any, cast

from celery import Task, shared_task

from batchq.broker.signing import NotSigned
from batchq.engine.tracing import place_of, span
from batchq.errors import QueueError
from batchq.host.logs import log_context
from batchq.ports import Claim
from batchq.queue import heart
from batchq.queue.app import BatchqApp
from batchq.queue.backend import Part
from batchq.queue.feeding import Delivery, feed, run_delivered
from batchq.queue.light import may_go_on
from batchq.queue.message import COLLATE_BATCH, RUN_ITEM, MessageRefused, decode_end, decode_message

log = logging.getLogger(__name__)

HELD_AGAIN_S = 5
REFUSED = "refused"


class ItemTask(Task[Any, Any]):
    """The class of the task that runs items."""

    Request = "batchq.queue.request:Request"


@shared_task(name=RUN_ITEM, bind=True, ignore_result=True, base=ItemTask)
def run_item_task(self: Task[Any, Any], message: dict[str, Any]) -> str:
    """Runs one item; returns a receipt of one word. Never raises for reasons of the item."""
    services = _app(self).services
    try:
        ref, item = decode_message(message)
        spec = services.ledger.spec(ref.run, ref.step)
    except (MessageRefused, NotSigned) as error:
        log.error("refused: %s", error)
        return REFUSED  # the coordinator finds the item missing, and sends it again
    if spec is None:
        return Claim.DONE.value  # the run is over and forgotten
    began = time.monotonic()
    try:
        place = place_of(self.request.headers)
        receipt = run_delivered(ref, item, spec, place, services.ledger, services)
    except BaseException:
        heart.disown()  # else it looks held for as long as we live
        raise
    if receipt.again_s:
        # It waits for its provider, and others may use the slot meanwhile.
        raise self.retry(countdown=receipt.again_s, max_retries=None)
    if receipt.claim is Claim.HELD:
        # Its holder counts it. A part from us now would end the chord too early, none at all
        # would leave the chord open if the holder belongs to an earlier one.
        raise self.retry(countdown=HELD_AGAIN_S, max_retries=None)
    took_s = time.monotonic() - began
    if may_go_on(self.request.headers):
        _go_on(self, receipt.claim, took_s)
    return receipt.claim.value


def _go_on(task: Task[Any, Any], claim: Claim, item_s: float) -> None:
    """Lets the slot take what comes next by itself; its own item is done, whatever happens."""
    request: Any = task.request
    part = Part(request.id, request.group, request.group_index, request.chord, claim.value)
    own = Delivery(request.delivery_info["routing_key"], part, request.timelimit)
    try:
        feed(_app(task), own, item_s)
    except QueueError as error:
        heart.disown()
        log.warning("items that were taken are left to others: %s", error)
    except BaseException:
        heart.disown()
        raise


@shared_task(name=COLLATE_BATCH, bind=True, ignore_result=True)
def collate_batch_task(self: Task[Any, Any], *message: Any) -> None:
    """Writes a batch's outcomes to the run folder and goes on with the run."""
    from batchq.queue.advance import advance  # stores take time that workers do not have

    try:
        run, step, batch = decode_end(*message)
    except MessageRefused as error:
        log.error("refused: %s", error)  # the next look at the run finds that the batch has ended
        return
    about = {"run": run, "step": step, "batch": batch}
    with log_context(run=run), span("collate", place_of(self.request.headers), **about):
        advance(run, _app(self), collate=(step, batch))


def _app(task: Task[Any, Any]) -> BatchqApp:
    return cast("BatchqApp", task.app)
