"""Sends a batch out as a Celery chord: one task an item, `collate_batch` as its callback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery, chord, group

from batchq.plan import Item, StepPlan
from batchq.ports import ItemRef
from batchq.queue.app import CONTROL_QUEUE
from batchq.queue.tasks import collate_batch_task, encode_message, run_item_task

HARD_LIMIT_SLACK_S = 30


class PipelinedGroup(group):  # type: ignore[misc]  # celery's canvas has no types
    """A group whose messages go to Redis in one round trip instead of one each."""

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Publishes the tasks; a chord calls this with its own identity for them."""
        with self.app.producer_pool.acquire(block=True) as producer, producer.batch():
            return super().apply_async(*args, producer=producer, **kwargs)


def dispatch_batch(
    run: str, step: StepPlan, batch: int, items: Sequence[Item], app: Celery
) -> None:
    """Publishes a chord over the items. The ledger must have opened the batch before.

    The callback is also the chord's error callback: the ledger, not the chord's results, says
    what became of the items, so one whose process died is found missing there.
    """
    options: dict[str, Any] = {"queue": f"batchq.{step.queue}", **_time_limits(step)}
    number = step.spec.number
    header = PipelinedGroup(
        [
            run_item_task.s(encode_message(ItemRef(run, number, batch, item.index), item)).set(
                **options, argsrepr=f"({item.id!r},)", kwargsrepr="{}"
            )
            for item in items
        ],
        app=app,
    )
    collate = collate_batch_task.si(run, number, batch).set(queue=CONTROL_QUEUE)
    body = collate.clone().on_error(collate.clone())
    chord(header, app=app).run(header, body, (), app=app)


def _time_limits(step: StepPlan) -> dict[str, Any]:
    """Bounds Python functions by the worker; everything else bounds itself."""
    if not step.spec.timeout_s or all(stage.kind != "task" for stage in step.spec.stages):
        return {}
    tries = (step.spec.retry.max_retries + 1) * len(step.spec.stages)
    soft_s = step.spec.timeout_s * tries
    return {"soft_time_limit": soft_s, "time_limit": soft_s + HARD_LIMIT_SLACK_S}
