"""Sends a batch out as a Celery chord: one task an item, `collate_batch` as its callback."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from celery import Celery, chord, group

from batchq.engine.tracing import PLACE, is_on, span
from batchq.ledger.keys import SENT_AT
from batchq.plan import Item, StepPlan
from batchq.ports import ItemRef
from batchq.queue.light import LIGHT, is_light
from batchq.queue.message import COLLATE_BATCH, RUN_ITEM, encode_end, encode_message
from batchq.queue.names import CONTROL_QUEUE
from batchq.queue.serializer import sealed
from batchq.queue.template import Template, envelope_of

if TYPE_CHECKING:
    from batchq.queue.app import BatchqApp

HARD_LIMIT_SLACK_S = 5
PUSHED_AT_ONCE = 50


def dispatch_batch(
    run: str, step: StepPlan, batch: int, items: Sequence[Item], sent_at: float, app: BatchqApp
) -> None:
    """Publishes a chord over the items. The ledger must have opened the batch, at `sent_at`.

    The callback comes also if a task's process died (see `Backend.chord_error_from_stack`): the
    ledger, not the chord's results, says what became of the items.
    """
    number = step.spec.number
    calls = [
        ((encode_message(ItemRef(run, number, batch, item.index), item),), f"({item.id!r},)")
        for item in items
    ]
    place = app.services.ledger.about(run).get("trace", "") if is_on() else ""
    about = {"run": run, "step": step.spec.name, "batch": batch, "items": len(items)}
    with span("batch", place, **about) as here:
        traced = {PLACE: here} if here else {}
        options: dict[str, Any] = {
            "queue": f"batchq.{step.queue}",
            "kwargsrepr": "{}",
            "headers": {SENT_AT: sent_at, **({LIGHT: True} if is_light(step) else {}), **traced},
        }
        options.update(_time_limits(step))
        header = UniformGroup(app.signature(RUN_ITEM, **options), calls, app)
        end = encode_end(run, number, batch)
        more = {"headers": traced} if traced else {}
        collate = app.signature(
            COLLATE_BATCH, args=(end,), immutable=True, queue=CONTROL_QUEUE, **more
        )
        chord(header, app=app).run(header, collate, (), app=app)


class UniformGroup(group):
    """A group whose tasks differ in their arguments only, published in one round trip.

    Celery makes the message of the first task, kombu its envelope, and each task's is the text of
    that with an id, index and arguments of its own: a thirtieth of the time of a signature a task,
    and what a worker gets is the same. `calls` holds the (args, argsrepr) of each task.
    """

    def __init__(self, task: Any, calls: Sequence[tuple[tuple[Any, ...], str]], app: Celery):
        self.calls = calls
        args, argsrepr = calls[0]
        super().__init__([task.clone(args=args, argsrepr=argsrepr)], app=app)

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Publishes the tasks; a chord calls this with its own identity for them."""
        with self.app.producer_pool.acquire(block=True) as producer:
            recorder = _Recorder(producer)
            kwargs["producer"] = recorder
            result: Any = super().apply_async(*args, **kwargs)
            backend: Any = self.app.backend
            for one in result.results:  # nobody here waits for it, as its subscription would
                backend.remove_pending_result(one)
            backend.set_chord_size(result.id, len(self.calls))  # it has seen one task
            self._send(producer, *recorder.message)
        return result

    def _send(self, producer: Any, body: Any, options: dict[str, Any]) -> None:
        """Sends all messages; again if Redis went away meanwhile, then some may come twice."""
        policy = options.pop("retry_policy", None) or {}

        def send() -> None:
            channel = producer.channel
            queue, envelope = envelope_of(channel, body, **{**options, "retry": False})
            _, kwargs, embed = body
            template = Template(envelope, kwargs, embed, partial(sealed, options["serializer"]))
            texts = template.fill_all(envelope["headers"]["id"], self.calls)
            with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
                while some := list(islice(texts, PUSHED_AT_ONCE)):
                    pipe.lpush(queue, *some)
                pipe.execute()

        producer.connection.ensure(producer, send, **policy)()


class _Recorder:
    """Stands in for a producer, and keeps the message that it is asked to publish."""

    def __init__(self, producer: Any) -> None:
        self.connection = producer.connection
        self.message: tuple[Any, dict[str, Any]] = ((), {})

    def publish(self, body: Any, **options: Any) -> None:
        """Keeps a message."""
        self.message = (body, options)


def _time_limits(step: StepPlan) -> dict[str, Any]:
    """Bounds Python functions from outside: for code that does not heed the limit of its try."""
    spec, retry = step.spec, step.spec.retry
    if not spec.timeout_s or any(stage.kind != "task" for stage in spec.stages):
        return {}
    waits_s = retry.max_retries * retry.max_delay_s
    whole_s = spec.timeout_s * (retry.max_retries + 1) + waits_s
    return {"time_limit": whole_s * len(spec.stages) + HARD_LIMIT_SLACK_S}
