from __future__ import annotations

import gzip
from collections.abc import Iterator
from email.message import Message
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from batchq.engine import tracing

MANIFEST = """
    name: traced
    steps:
      - {name: a, input: {generate: 3}, task: "cluster_tasks:odd_fails", retry: {max_retries: 0}}
"""


class Collector:
    """A real OTLP receiver over HTTP; `spans` by name."""

    def __init__(self) -> None:
        self.spans: dict[str, list[Any]] = {}
        self.url = ""


@pytest.fixture
def collector(post_server: Any) -> Iterator[Collector]:
    made = Collector()

    def answer(headers: Message, body: bytes) -> int:
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for one in scope.spans:
                    made.spans.setdefault(one.name, []).append(one)
        return 200

    with post_server(answer) as url:
        made.url = url
        yield made


def test_a_run_is_one_trace_from_its_submit_to_its_collate(
    cluster: Any, collector: Collector, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)  # of workers, too
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    monkeypatch.setattr(tracing, "_pid", 0)
    cluster.worker("-Q", "batchq.control,batchq.cpu", "-P", "threads", "-c", "2")

    info = cluster.submit(MANIFEST)
    cluster.finish(info)
    tracing.flush()
    wait_for(lambda: "batchq.collate" in collector.spans, "the spans were sent")
    wait_for(lambda: len(collector.spans.get("batchq.attempt", ())) == 3, "all attempts were sent")

    spans = collector.spans
    assert {name: len(found) for name, found in spans.items()} == {
        "batchq.submit": 1,
        "batchq.batch": 1,
        "batchq.item": 3,
        "batchq.attempt": 3,
        "batchq.collate": 1,
    }
    assert len({one.trace_id for found in spans.values() for one in found}) == 1
    [submit], [batch], [collate] = (spans[f"batchq.{n}"] for n in ("submit", "batch", "collate"))
    items = {one.span_id: one for one in spans["batchq.item"]}
    assert (submit.parent_span_id, batch.parent_span_id) == (b"", submit.span_id)
    assert {one.parent_span_id for one in (*items.values(), collate)} == {batch.span_id}
    assert {one.parent_span_id for one in spans["batchq.attempt"]} == set(items)
    assert sorted(one.status.message for one in spans["batchq.attempt"]) == ["", "task", "task"]
    about = {one.key: one.value for one in collate.attributes}
    assert about["batchq.run"].string_value == info.run
