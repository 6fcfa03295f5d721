"""Shows what is counted and how the fleet stands in Prometheus's text format."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from batchq.engine.tally import METRICS, Key
from batchq.errors import BatchqError
from batchq.monitoring.fleet import Fleet, read_fleet
from batchq.services import build_services

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from batchq.settings import Settings

log = logging.getLogger(__name__)

FLEET = "batchq_"
"""What is true of the whole fleet: the same, whoever is asked, so never to be added up."""
WORKER = "batchq_worker_"
"""What one worker counted since it began."""
PATIENCE_S = 1.0
FRESH_S = 1.0

Sample = tuple[tuple[str, ...], float]


class FleetCollector:
    """Reads Redis when it is asked, once a second at most; if that is away it says only so."""

    def __init__(self, settings: Settings, queues: Iterable[str]) -> None:
        self._services = build_services(settings, patience_s=PATIENCE_S)
        self._queues = tuple(queues)
        self._lock = threading.Lock()
        self._fleet: Fleet | None = None
        self._read_at = -math.inf
        self._reading: threading.Thread | None = None

    def describe(self) -> Iterator[Metric]:
        """The names alone, for a registry that looks for clashes."""
        yield from fleet_metrics(None)

    def collect(self) -> Iterator[Metric]:
        """All metrics of the fleet; never blocks for long, whatever became of Redis."""
        fleet = self._fresh()
        yield _gauge("redis_up", "Whether Redis answers.", (), [((), float(fleet is not None))])
        yield from fleet_metrics(fleet)

    def _fresh(self) -> Fleet | None:
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_S:
                if self._reading is None or not self._reading.is_alive():
                    self._reading = threading.Thread(target=self._read, daemon=True)
                    self._reading.start()
                self._reading.join(PATIENCE_S)
                if self._reading.is_alive():
                    return None
            return self._fleet

    def _read(self) -> None:
        try:
            self._fleet = read_fleet(self._services, self._queues)
        except BatchqError as error:
            log.debug("the metrics of the fleet cannot be read: %s", error)
            self._fleet = None
        self._read_at = time.monotonic()


class WorkerCollector:
    """Shows the counts of one worker, which `read` gives."""

    def __init__(self, read: Callable[[], Mapping[Key, float]]) -> None:
        self._read = read

    def describe(self) -> Iterator[Metric]:
        """The names alone, for a registry that looks for clashes."""
        yield from counted_metrics(WORKER, {})

    def collect(self) -> Iterator[Metric]:
        """What it counted."""
        yield from counted_metrics(WORKER, self._read())


def publish(settings: Settings, queues: Iterable[str]) -> None:
    """Adds the metrics of the fleet to those that this process shows already, as Flower does."""
    from prometheus_client import REGISTRY

    REGISTRY.register(FleetCollector(settings, queues))


def serve(port: int, address: str, collectors: Iterable[Any]) -> Callable[[], None]:
    """Serves metrics over HTTP until what it returns is called; raises OSError for a taken port."""
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

    registry: CollectorRegistry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    for collector in collectors:
        registry.register(collector)
    server, thread = start_http_server(port, address, registry=registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


def counted_metrics(prefix: str, counted: Mapping[Key, float]) -> Iterator[Metric]:
    """The counters and histograms of `tally.METRICS`, also those that nothing was counted of."""
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    by_name: dict[str, dict[tuple[str, ...], float]] = {}
    for (name, *labels), amount in counted.items():
        by_name.setdefault(name, {})[tuple(labels)] = amount
    for name, metric in METRICS.items():
        found = by_name.get(name, {})
        if not metric.buckets:
            family = CounterMetricFamily(prefix + name, metric.help, labels=metric.labels)
            for values, amount in sorted(found.items()):
                family.add_metric(values, amount)
            yield family
            continue
        histogram = HistogramMetricFamily(prefix + name, metric.help, labels=metric.labels)
        for own in sorted({values[:-1] for values in found}):
            total, buckets = 0.0, []
            for bound in (*metric.buckets, math.inf):
                total += found.get((*own, f"{bound:g}"), 0.0)
                buckets.append(("+Inf" if math.isinf(bound) else f"{bound:g}", total))
            histogram.add_metric(own, buckets, found.get((*own, "sum"), 0.0))
        yield histogram


def fleet_metrics(fleet: Fleet | None) -> Iterator[Metric]:
    """Everything about a fleet; without one the names only."""
    yield from counted_metrics(FLEET, fleet.counted if fleet else {})
    yield from _process_metrics(fleet)
    yield from _queue_metrics(fleet)
    yield from _run_metrics(fleet)
    yield from _provider_metrics(fleet)
    took = [((), fleet.took_s)] if fleet else []
    yield _gauge("read_seconds", "Time that it took to read all this from Redis.", (), took)


def _process_metrics(fleet: Fleet | None) -> Iterator[Metric]:
    counts: dict[tuple[str, ...], float] = {}
    skews: dict[tuple[str, ...], float] = {}
    for about in fleet.alive.values() if fleet else ():
        if about.get("role") == "process":
            continue  # a part of a worker
        key = (str(about["role"]), str(about["version"]))
        counts[key] = counts.get(key, 0.0) + 1
        host = (str(about["host"]),)
        skews[host] = max(skews.get(host, 0.0), abs(float(about.get("skew_s", 0.0))))
    yield _gauge(
        "processes", "Coordinators and workers that are alive.", ("role", "version"), counts.items()
    )
    yield _gauge(
        "clock_skew_seconds", "How far a host's clock is from Redis's.", ("host",), skews.items()
    )


def _queue_metrics(fleet: Fleet | None) -> Iterator[Metric]:
    queues = fleet.queues if fleet else {}
    for name, text, attribute in (
        ("queue_messages", "Items that wait for a worker.", "waiting"),
        ("workers", "Workers that take from a queue.", "workers"),
        ("slots", "Items that the workers of a queue can run at once.", "slots"),
        ("active", "Items of a queue that are run now.", "active"),
        ("load", "Items that are run or wait for a worker: slots that would be of use.", "load"),
    ):
        samples = [((queue,), float(getattr(use, attribute))) for queue, use in queues.items()]
        yield _gauge(name, text, ("queue",), samples)


def _run_metrics(fleet: Fleet | None) -> Iterator[Metric]:
    uses = fleet.pipelines if fleet else {}
    yield _gauge(
        "runs",
        "Runs that are not over.",
        ("pipeline", "state"),
        [((name, word), float(n)) for name, use in uses.items() for word, n in use.runs.items()],
    )
    yield _gauge(
        "run_items",
        "Items of the runs that are not over; left are those that have not ended.",
        ("pipeline", "state"),
        [
            ((name, word), float(number))
            for name, use in uses.items()
            for word, number in (("ok", use.ok), ("failed", use.failed), ("left", use.left))
        ],
    )
    yield _gauge(
        "open_batches",
        "Batches in flight.",
        ("pipeline",),
        [((name,), float(use.open_batches)) for name, use in uses.items()],
    )
    yield _gauge(
        "oldest_batch_seconds",
        "How long ago the oldest batch in flight was sent.",
        ("pipeline",),
        [((name,), use.oldest_s) for name, use in uses.items() if use.oldest_s is not None],
    )
    yield _gauge(
        "budget_spent_ratio",
        "The share of its budget that a run has spent; the largest of a pipeline's runs.",
        ("pipeline",),
        [((name,), use.budget) for name, use in uses.items() if use.budget is not None],
    )


def _provider_metrics(fleet: Fleet | None) -> Iterator[Metric]:
    # The same name at two addresses is one provider here: an address may be long, or secret.
    uses = {use.name: use for use in (fleet.providers if fleet else ())}.values()
    yield _gauge(
        "provider_limit",
        "The limits of providers that are in force.",
        ("provider", "limit"),
        [
            ((use.name, one.name), one.amount)
            for use in uses
            for one in use.limits
            if one.amount is not None
        ],
    )
    for name, text, read in (
        ("provider_in_flight", "Calls under way.", lambda use: use.in_flight),
        ("provider_waiting", "Calls in line for a limit.", lambda use: sum(use.waiting.values())),
        (
            "provider_requests_per_minute",
            "Requests that were granted in the last minute.",
            lambda use: use.requests_per_minute,
        ),
        (
            "provider_tokens_per_minute",
            "Tokens that were granted in the last minute.",
            lambda use: use.tokens_per_minute,
        ),
        (
            "provider_available",
            "0 while a provider is not called, since it did not answer.",
            lambda use: use.breaker in ("closed", "slow"),
        ),
        ("provider_paused_seconds", "For how long nobody may call.", lambda use: use.paused_s),
    ):
        yield _gauge(name, text, ("provider",), [((use.name,), float(read(use))) for use in uses])


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(FLEET + name, text, labels=labels)
    for values, amount in samples:
        family.add_metric(values, amount)
    return family
