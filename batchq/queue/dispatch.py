"""Sends a batch out as a Celery chord: one task an item, `collate_batch` as its callback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from celery import Celery, chord, group

from batchq.plan import Item, StepPlan
from batchq.ports import ItemRef
from batchq.queue.message import COLLATE_BATCH, RUN_ITEM, encode_message
from batchq.queue.names import CONTROL_QUEUE

HARD_LIMIT_SLACK_S = 30


class PipelinedGroup(group):
    """A group whose messages go to Redis in one round trip instead of one each."""

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Publishes the tasks; a chord calls this with its own identity for them."""
        with self.app.producer_pool.acquire(block=True) as producer:
            kwargs["producer"] = producer
            with cast("Any", producer).batch():
                return super().apply_async(*args, **kwargs)


def dispatch_batch(
    run: str, step: StepPlan, batch: int, items: Sequence[Item], app: Celery
) -> None:
    """Publishes a chord over the items. The ledger must have opened the batch before.

    The callback is also the chord's error callback: the ledger, not the chord's results, says
    what became of the items, so one whose process died is found missing there.
    """
    number = step.spec.number
    options: dict[str, Any] = {"queue": f"batchq.{step.queue}", "kwargsrepr": "{}"}
    options.update(_time_limits(step))
    header = [
        app.signature(
            RUN_ITEM,
            args=(encode_message(ItemRef(run, number, batch, item.index), item),),
            argsrepr=f"({item.id!r},)",
            **options,
        )
        for item in items
    ]
    collate = app.signature(
        COLLATE_BATCH, args=(run, number, batch), immutable=True, queue=CONTROL_QUEUE
    )
    body = collate.clone().on_error(collate.clone())
    chord(header, app=app).run(PipelinedGroup(header, app=app), body, (), app=app)


def _time_limits(step: StepPlan) -> dict[str, Any]:
    """Bounds Python functions by the worker; everything else bounds itself."""
    if not step.spec.timeout_s or all(stage.kind != "task" for stage in step.spec.stages):
        return {}
    tries = (step.spec.retry.max_retries + 1) * len(step.spec.stages)
    soft_s = step.spec.timeout_s * tries
    return {"soft_time_limit": soft_s, "time_limit": soft_s + HARD_LIMIT_SLACK_S}
