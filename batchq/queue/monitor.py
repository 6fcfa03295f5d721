"""Serves the metrics of a worker or a coordinator while it runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from celery import bootsteps
from celery.signals import worker_process_shutdown

from batchq.engine import tracing
from batchq.engine.tally import Key
from batchq.errors import QueueError
from batchq.queue import heart
from batchq.queue.coordinator import HeartbeatStep
from batchq.queue.names import CONTROL_QUEUE, DEFAULT_QUEUES
from batchq.services import Services, build_services

if TYPE_CHECKING:
    from batchq.queue.app import BatchqApp

log = logging.getLogger(__name__)

PATIENCE_S = 1.0


class MetricsStep(bootsteps.StartStopStep):
    """Serves them at `metrics_port`: a worker its own, a coordinator those of the fleet, too."""

    requires = (HeartbeatStep,)

    def __init__(self, _worker: Any, **_: Any) -> None:
        self._end: Callable[[], None] | None = None

    def include_if(self, worker: Any) -> bool:
        """Only where a port is set."""
        return bool(worker.app.settings.metrics_port)

    def start(self, worker: Any) -> None:
        """Begins to serve; a port that is taken keeps no worker from its work."""
        from batchq.monitoring import metrics  # and with it Prometheus's client

        settings = worker.app.settings
        collectors: list[Any] = [metrics.WorkerCollector(_counts_of(worker.app.services))]
        if CONTROL_QUEUE in worker.app.amqp.queues.consume_from:
            collectors.append(metrics.FleetCollector(settings, DEFAULT_QUEUES))
        try:
            self._end = metrics.serve(settings.metrics_port, settings.metrics_address, collectors)
        except OSError as error:
            place = f"{settings.metrics_address}:{settings.metrics_port}"
            log.warning("no metrics at %s: %s; set BATCHQ_METRICS_PORT to another", place, error)

    def stop(self, _worker: Any) -> None:
        """Stops to serve."""
        if self._end is not None:
            self._end()


def _counts_of(services: Services) -> Callable[[], Mapping[Key, float]]:
    """Reads what this process counted, and what those of its pool told."""
    quick = build_services(services.settings, patience_s=PATIENCE_S)
    worker = heart.worker_name(os.getpid())

    def read() -> dict[Key, float]:
        counted = services.tally.totals()
        try:
            of_pool = quick.tallies.read(worker)
        except QueueError as error:
            log.debug("what the pool's processes counted is not known now: %s", error)
            return counted
        return {key: counted.get(key, 0.0) + of_pool.get(key, 0.0) for key in {*counted, *of_pool}}

    return read


@worker_process_shutdown.connect
def _keep_last_counts(**_: Any) -> None:
    """Takes the last counts of a pool's process to Redis, and its traces to where they go."""
    from celery import current_app

    heart.keep_last_counts(cast("BatchqApp", current_app).services)
    tracing.flush()
