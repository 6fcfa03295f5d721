"""What a worker does besides tasks: it says that it is alive, and a coordinator looks at runs."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import Counter
from typing import Any

from celery import bootsteps

from batchq.broker.signing import signer_of
from batchq.errors import BatchqError
from batchq.host.logs import log_context
from batchq.queue import heart
from batchq.queue.names import CONTROL_QUEUE

log = logging.getLogger(__name__)

TICK_S = 0.1
LOOK_AGAIN_S = 5.0


class HeartbeatStep(bootsteps.StartStopStep):
    """Lets `doctor` and `status` see the worker: its host, queues, slots and version."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, _worker: Any, **_: Any) -> None:
        self.stop_event = threading.Event()

    def start(self, worker: Any) -> None:
        """Beats until the worker stops."""
        self.services = services = worker.app.services
        name = heart.worker_name(os.getpid())
        queues = ",".join(sorted(worker.app.amqp.queues.consume_from))
        role = "coordinator" if CONTROL_QUEUE in queues.split(",") else "worker"
        slots = int(worker.concurrency or 0)
        try:
            about: dict[str, Any] = {"role": role, "queues": queues, "slots": slots}
            heart.beat(services, name, **about, more=self._about())
        except BatchqError as error:
            log.warning("no heartbeat: %s", error)
        heart.start(services, name, **about, stop=self.stop_event, more=self._about)

    def _about(self) -> dict[str, Any]:
        settings = self.services.settings
        signer = signer_of(settings.signing_key, settings.broker_url)
        return {
            "active": active_items(),
            "skew_s": round(self.services.ledger.clock_skew_s(), 3),
            "signs": signer.name if signer else "",
        }

    def stop(self, _worker: Any) -> None:
        """Stops beating, and leaves no count behind."""
        self.stop_event.set()
        heart.keep_last_counts(self.services)


def active_items() -> dict[str, int]:
    """How many items run in this worker, by their queue; in its pool, whatever kind that is."""
    from celery.worker import state  # brings the whole worker, which `submit` does not need

    try:
        requests = list(state.active_requests)
    except RuntimeError:  # one began or ended in this moment; the next beat is soon
        return {}
    return dict(Counter(one.delivery_info.get("routing_key", "") for one in requests))


class ControlStep(bootsteps.StartStopStep):
    """What a coordinator does again and again, in a thread of its own: nothing waits for it."""

    requires = (HeartbeatStep,)
    every_s = 0.5
    trouble = ""

    def __init__(self, _worker: Any, **_: Any) -> None:
        self.stop_event = threading.Event()

    def include_if(self, worker: Any) -> bool:
        """Only where the control queue is consumed."""
        return CONTROL_QUEUE in worker.app.amqp.queues.consume_from

    def start(self, worker: Any) -> None:
        """Starts to look."""
        name = f"batchq-{type(self).__name__}"
        threading.Thread(target=self.go_on, args=(worker.app,), name=name, daemon=True).start()

    def stop(self, _worker: Any) -> None:
        """Stops to look; what is left stays for the next coordinator."""
        self.stop_event.set()

    def look(self, app: Any) -> None:
        """Does what there is to do."""
        raise NotImplementedError

    def go_on(self, app: Any) -> None:
        """Looks until it is told to stop."""
        while not self.stop_event.wait(self.every_s):
            try:
                self.look(app)
            except BatchqError as error:
                log.warning("%s: %s", self.trouble, error)
            except Exception:
                # The border of this thread: a fault in one look must not end all the others.
                log.exception("%s", self.trouble)


class CoordinatorStep(ControlStep):
    """Looks at every run when it is due: after a delay between batches, and now and then.

    So a run goes on even if the message that should have woken its coordinator was lost.
    """

    every_s = TICK_S
    trouble = "cannot look at the runs"

    def go_on(self, app: Any) -> None:
        """Looks, or ends the whole process."""
        try:
            import batchq.queue.advance  # noqa: F401 (it takes time that a start does not have)
        except BaseException:
            # One that does not look is worse than none: its heartbeat says that runs are cared for.
            log.critical("this coordinator cannot work, so it ends", exc_info=True)
            os.kill(os.getpid(), signal.SIGTERM)
            raise
        super().go_on(app)

    def look(self, app: Any) -> None:
        """Advances the runs that are due."""
        from batchq.queue.advance import advance

        for run in app.services.ledger.take_due(time.time(), again_s=LOOK_AGAIN_S):
            with log_context(run=run):
                advance(run, app)


class UploadStep(ControlStep):
    """Sends uploads to their providers, and looks how far they are."""

    trouble = "uploads cannot be looked after now"
    uploads: Any = None

    def look(self, app: Any) -> None:
        """Looks at those that are due."""
        if self.uploads is None:
            from batchq.runs.uploads import Uploads  # it takes time that a start does not have

            self.uploads = Uploads(app.services)
        self.uploads.look_at_due(time.time())


class NotifierStep(ControlStep):
    """Sends the notices in the outbox."""

    trouble = "notices cannot be sent now"

    def look(self, app: Any) -> None:
        """Sends those that are due, and those that runs before left in the home folder."""
        from batchq.monitoring.keptletters import send_kept
        from batchq.monitoring.notify import send_due

        send_due(app.services)
        send_kept(app.services.settings.home)


class ScheduleStep(ControlStep):
    """Submits manifests when their time has come."""

    every_s = 1.0
    trouble = "cannot look at the schedules"

    def look(self, app: Any) -> None:
        """Submits those that are due."""
        from batchq.runs.scheduling import submit_due

        submit_due(app.services, time.time())
