"""Sends notices from a coordinator, beside its work."""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery import bootsteps

from batchq.errors import BatchqError
from batchq.notify import send_due
from batchq.queue.coordinator import HeartbeatStep
from batchq.queue.names import CONTROL_QUEUE

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5


class NotifierStep(bootsteps.StartStopStep):
    """Looks into the outbox in a thread of its own: no run waits for a webhook."""

    requires = (HeartbeatStep,)

    def __init__(self, _worker: Any, **_: Any) -> None:
        self.stop_event = threading.Event()

    def include_if(self, worker: Any) -> bool:
        """Only where the control queue is consumed."""
        return CONTROL_QUEUE in worker.app.amqp.queues.consume_from

    def start(self, worker: Any) -> None:
        """Starts to look."""
        thread = threading.Thread(
            target=self._look, args=(worker.app,), name="batchq-notifier", daemon=True
        )
        thread.start()

    def stop(self, _worker: Any) -> None:
        """Stops to look; what is not sent stays for the next coordinator."""
        self.stop_event.set()

    def _look(self, app: Any) -> None:
        while not self.stop_event.wait(LOOK_EVERY_S):
            try:
                send_due(app.services)
            except BatchqError as error:
                log.warning("notices cannot be sent now: %s", error)
            except Exception:
                # The border of this thread: a fault in one letter must not end all the others.
                log.exception("a notice failed")
