"""Traces of a run for OpenTelemetry, from its submit to its collate; the extra `otel`.

On where OTEL_EXPORTER_OTLP_ENDPOINT is set, and by OpenTelemetry's other variables. The place in
the trace travels in the headers of messages, never in what an item or a model sees.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from batchq.outcome import Outcome
    from batchq.plan import StepSpec

log = logging.getLogger(__name__)

PLACE = "traceparent"
"""The header of a message, as W3C names it."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_OFF = "OTEL_SDK_DISABLED"
_PREFIX = "batchq."

_provider: TracerProvider | None = None
_pid = 0


def is_on() -> bool:
    """Whether somebody wants traces."""
    is_off = os.environ.get(_OFF, "").lower() == "true"
    return not is_off and any(os.environ.get(name) for name in _ENDPOINTS)


@contextmanager
def span(name: str, place: str = "", **attributes: Any) -> Iterator[str]:
    """Traces what is done within, below `place` or what goes on; yields its own place.

    Does nothing, and yields nothing, where there are no traces.
    """
    provider = _own_provider()
    if provider is None:
        yield ""
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    travel = TraceContextTextMapPropagator()
    context = travel.extract({PLACE: place}) if place else None
    tracer = provider.get_tracer("batchq")
    told = {f"{_PREFIX}{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(f"{_PREFIX}{name}", context=context, attributes=told):
        carrier: dict[str, str] = {}
        travel.inject(carrier)
        yield carrier.get(PLACE, "")


def place_of(headers: Mapping[str, Any] | None) -> str:
    """The place in a trace that a message came with."""
    found = (headers or {}).get(PLACE, "")
    return found if isinstance(found, str) else ""


def trace_attempts(spec: StepSpec | None, outcome: Outcome) -> None:
    """Traces what was tried for an item, after it has ended, below what goes on."""
    provider = _own_provider()
    if provider is None:
        return
    from opentelemetry.trace import Status, StatusCode

    tracer = provider.get_tracer("batchq")
    stages = {stage.name: stage for stage in spec.stages} if spec else {}
    for attempt in outcome.attempts:
        stage = stages.get(attempt.stage)
        told: dict[str, str | int | float | bool] = {
            "stage": attempt.stage,
            "attempt": attempt.number,
            "provider": stage.provider.name if stage and stage.provider else "",
            "model": attempt.model,
            "waited_s": attempt.waited_s,
            "cached": attempt.cached,
            "input_tokens": attempt.usage.input_tokens,
            "output_tokens": attempt.usage.output_tokens,
            "cost_usd": attempt.usage.cost_usd,
        }
        one = tracer.start_span(
            f"{_PREFIX}attempt",
            start_time=_nanoseconds(attempt.started_at),
            attributes={f"{_PREFIX}{key}": value for key, value in told.items()},
        )
        if attempt.error is not None:  # its kind; its words may hold what an item holds
            one.set_status(Status(StatusCode.ERROR, attempt.error.kind))
        one.end(_nanoseconds(attempt.started_at + attempt.duration_s))


def flush() -> None:
    """Sends what was traced by this process, for one that ends in a way of its own."""
    if _provider is not None and _pid == os.getpid():
        _provider.force_flush()


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _own_provider() -> TracerProvider | None:
    """The provider of this process; a fork has none of the threads of its parent's."""
    global _provider, _pid
    if not is_on():
        return None
    if _pid != os.getpid():
        _provider, _pid = _make_provider(), os.getpid()
    return _provider


def _make_provider() -> TracerProvider | None:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("there are no traces: pip install 'batchq[otel]'")
        return None
    name = os.environ.get("OTEL_SERVICE_NAME", "batchq")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
