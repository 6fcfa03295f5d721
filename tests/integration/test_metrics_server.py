from __future__ import annotations

import os
import signal
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from batchq.monitoring.metrics import FleetCollector
from batchq.settings import Settings

MANIFEST = """
    name: measured
    providers:
      sim: {{kind: openai, base_url: "{url}", model: sim-1, limits: {{rpm: 240}},
             prices: {{input_per_1m: 1, output_per_1m: 1}}}}
    steps:
      - {{name: ask, input: {{generate: 6}}, prompt: "Say\\n{{number}}"}}
      - {{name: odd, task: "cluster_tasks:odd_fails", input: {{generate: 6}}, needs: [ask],
         retry: {{max_retries: 0}}}}
"""


def scrape(port: int) -> dict[str, float]:
    """Every sample of a page, as `name{label values, sorted}`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        f"{one.name}{{{','.join(sorted(one.labels.values()))}}}": one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_workers_tell_their_own_metrics_and_a_coordinator_those_of_the_fleet(
    cluster: Any, simulator: Any, wait_for: Any, free_port: Any
) -> None:
    ports = {name: free_port() for name in ("coordinator", "llm", "cpu")}

    def env(name: str) -> dict[str, str]:
        return {"BATCHQ_METRICS_PORT": str(ports[name])}

    cluster.worker("-Q", "batchq.control", "-P", "threads", "-c", "2", env=env("coordinator"))
    cluster.worker("-Q", "batchq.llm", "-P", "threads", "-c", "2", env=env("llm"))
    cluster.worker("-Q", "batchq.cpu", "-P", "prefork", "-c", "2", env=env("cpu"))
    info = cluster.submit(MANIFEST.format(url=simulator(latency_ms=10).url))
    cluster.finish(info)

    wait_for(
        lambda: scrape(ports["coordinator"]).get("batchq_items_ended_total{failed,task}") == 3,
        "the counts of all workers have come to Redis",
    )
    fleet, llm, cpu = (scrape(ports[name]) for name in ports)

    assert fleet["batchq_redis_up{}"] == 1
    assert fleet["batchq_items_ended_total{,ok}"] == 9
    assert fleet["batchq_calls_total{answered,sim}"] == 6
    assert fleet["batchq_call_seconds_count{sim}"] == 6
    assert fleet["batchq_wait_seconds_total{rpm,sim}"] > 0
    assert fleet["batchq_tokens_total{input,sim}"] > 0
    assert fleet["batchq_cost_usd_total{sim}"] > 0
    assert fleet["batchq_slots{cpu}"] == 2
    assert fleet["batchq_provider_limit{rpm,sim}"] == 240
    assert fleet["batchq_queue_messages{llm}"] == 0
    assert fleet["process_resident_memory_bytes{}"] > 0
    assert llm["batchq_worker_items_ended_total{,ok}"] == 6
    assert "batchq_worker_items_ended_total{failed,task}" not in llm
    assert cpu["batchq_worker_items_ended_total{failed,task}"] == 3
    assert cpu["batchq_worker_items_ended_total{,ok}"] == 3
    assert not any(name.startswith("batchq_items") for name in llm)
    assert not any(info.run in name or "measured-" in name for name in (*fleet, *llm, *cpu))


def test_a_page_is_there_at_once_and_says_so_when_redis_stands_still(
    redis_server: Any, redis_url: str
) -> None:
    collector = FleetCollector(Settings(broker_url=redis_url), ["batchq.llm"])
    before = {one.name: one.samples for one in collector.collect()}
    collector._read_at = 0.0
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        away = {one.name: one.samples for one in collector.collect()}
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)

    assert before["batchq_redis_up"][0].value == 1
    assert before["batchq_queue_messages"][0].value == 0
    assert away["batchq_redis_up"][0].value == 0
    assert away["batchq_queue_messages"] == []
