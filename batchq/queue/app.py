"""Makes the Celery app: JSON only, late acknowledgement, one queue a kind of work."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import after_setup_logger, after_setup_task_logger, celeryd_init
from kombu import Exchange, Queue

from batchq.broker.redisclient import sentinel_options
from batchq.broker.sentinels import is_sentinel, parse_sentinels
from batchq.broker.signing import signer_of
from batchq.host.logs import JsonFormatter
from batchq.queue.names import DEFAULT_QUEUES
from batchq.queue.serializer import json_of
from batchq.settings import Settings, backend_url, verified

if TYPE_CHECKING:
    from batchq.services import Services

LOCAL_BROKER = "redis://127.0.0.1:6379/0"
TRANSPORT_OPTIONS = {
    "socket_timeout": 30.0,
    "socket_connect_timeout": 5.0,
    "health_check_interval": 25,
}


class BatchqApp(Celery):
    """A Celery app that knows its settings, and makes the process's services when first asked."""

    amqp_cls = "batchq.queue.transport:Amqp"
    events_cls = "batchq.queue.events:Events"
    settings: Settings
    _services: Services | None = None

    @property
    def services(self) -> Services:
        """The services of this process."""
        if self._services is None:
            from batchq.services import build_services  # opens connections: not before a fork

            self._services = build_services(self.settings)
        return self._services


NOT_OURS = ("celery.map", "celery.starmap", "celery.chunks")
"""Tasks of Celery that run others, and that nothing here sends."""


def make_app(settings: Settings) -> BatchqApp:
    """Makes the app for a broker; the default without one is a Redis on this machine.

    Workers consume `batchq.llm` and `batchq.cpu` unless told otherwise by `-Q`; the
    coordinator's queue only by name, since it needs the run folders.
    """
    broker = settings.broker_url or LOCAL_BROKER
    # Celery warns a superuser of pickled messages; ours are JSON and nothing else is accepted.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    app = BatchqApp("batchq", include=["batchq.queue.tasks", "batchq.queue.reply"])
    app.settings = settings.model_copy(update={"broker_url": broker})
    serializer = json_of(signer_of(settings.signing_key, broker))
    app.conf.update(
        **_places(broker),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        result_backend_thread_safe=True,  # else every greenlet opens a connection of its own
        result_expires=24 * 3600,
        redis_socket_timeout=30.0,
        redis_socket_keepalive=not broker.startswith("redis+socket"),
        task_serializer=serializer,
        accept_content=[serializer],
        result_serializer="json",
        result_accept_content=["json"],
        task_default_queue=DEFAULT_QUEUES[0],
        task_queues=[Queue(name, Exchange(name), name) for name in DEFAULT_QUEUES],
        task_create_missing_queues=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,  # a poison item would come back for ever: see collate
        task_track_started=False,
        task_store_eager_result=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_hijack_root_logger=True,
        worker_proc_alive_timeout=60.0,
        enable_utc=True,
    )
    from batchq.queue import coordinator
    from batchq.queue.leave import LeaveStep
    from batchq.queue.monitor import MetricsStep

    steps = (
        *(coordinator.CoordinatorStep, coordinator.UploadStep),
        *(coordinator.NotifierStep, coordinator.ScheduleStep),
    )
    app.steps["worker"].update((*steps, coordinator.HeartbeatStep, LeaveStep, MetricsStep))
    return app


def _places(broker: str) -> dict[str, Any]:
    """Where Celery finds its messages and results: in the same Redis."""
    options: dict[str, Any] = {}
    url, backend = verified(broker), f"batchq.queue.backend:Backend+{backend_url(broker)}"
    if is_sentinel(broker):
        where = parse_sentinels(broker)
        options = {"master_name": where.master, "sentinel_kwargs": sentinel_options(where)}
        url = where.celery_url()
        backend = f"batchq.queue.backend:SentinelBackend+{url}"
    return {
        "broker_url": url,
        "broker_transport_options": {**TRANSPORT_OPTIONS, **options},
        "result_backend": backend,
        "result_backend_transport_options": {"retry_policy": {"timeout": 600.0}, **options},
    }


@after_setup_logger.connect
@after_setup_task_logger.connect
def _format_logs(logger: Any = None, **_: Any) -> None:
    from celery import current_app

    settings = getattr(current_app, "settings", None)
    if settings is not None and settings.log_format == "json":
        for handler in logger.handlers:
            handler.setFormatter(JsonFormatter())


@celeryd_init.connect
def _refuse_in_a_line(instance: Any = None, **_: Any) -> None:
    from batchq.queue.refusals import tell_refusals_in_a_line

    tell_refusals_in_a_line()
    for name in NOT_OURS:
        instance.app.tasks.pop(name, None)


@celeryd_init.connect
def _feed_greenlets(conf: Any = None, options: dict[str, Any] | None = None, **_: Any) -> None:
    # With a multiplier of 1 a gevent worker stalls in its event loop at half its slots.
    if options and str(options.get("pool", "")).startswith("gevent"):
        conf.worker_prefetch_multiplier = 4
