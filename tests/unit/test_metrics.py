from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from batchq.engine.tally import Tally
from batchq.limiter.desk import LimitUse, ProviderUse
from batchq.monitoring.fleet import Fleet, PipelineUse, QueueUse
from batchq.monitoring.metrics import FLEET, WORKER, counted_metrics, fleet_metrics

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"\b(?:batchq|process)_[a-z_]+\b")


def text_of(families) -> str:
    from prometheus_client import CollectorRegistry, generate_latest

    class Collector:
        def collect(self):
            return families

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    return generate_latest(registry).decode()


def samples(families) -> dict[tuple[str, frozenset], float]:
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(text_of(families))
        for one in family.samples
    }


@pytest.fixture
def fleet() -> Fleet:
    tally = Tally()
    tally.add("items_ended", "ok", "", amount=3)
    worker = {"role": "worker", "version": "1", "host": "a", "skew_s": -2.5, "queues": "batchq.llm"}
    use = ProviderUse(
        key="deepseek-1",
        name='deep"seek\n',
        base_url="http://x",
        limits=(LimitUse("rpm", 600, 300, "set"),),
        in_flight=4,
        waiting={"r1": 2, "r2": 1},
        requests_per_minute=290.0,
        tokens_per_minute=0.0,
        granted=10,
        refused=1,
        waits=3,
        breaker="open",
        paused_s=0.0,
        outage_s=9.0,
    )
    return Fleet(
        alive={"w1": worker, "w2": {**worker, "skew_s": 1}, "p": {"role": "process"}},
        queues={"llm": QueueUse(waiting=5, workers=2, slots=50, active=7)},
        pipelines={"r": PipelineUse({"running": 2}, 3, 1, 6, 2, oldest_s=12.0, budget=0.4)},
        providers=(use,),
        counted=tally.totals(),
    )


def test_histograms_are_cumulative_and_counters_keep_their_labels() -> None:
    tally = Tally()
    for seconds in (0.2, 0.3, 400.0):
        tally.observe("call_seconds", "deepseek", seconds=seconds)
    tally.add("calls", "deepseek", "refused", amount=2)

    found = samples(counted_metrics(WORKER, tally.totals()))

    def bucket(bound: str) -> float:
        labels = frozenset({("provider", "deepseek"), ("le", bound)})
        return found["batchq_worker_call_seconds_bucket", labels]

    assert [bucket(bound) for bound in ("0.1", "0.25", "0.5", "300", "+Inf")] == [0, 1, 2, 2, 3]
    provider = frozenset({("provider", "deepseek")})
    assert found["batchq_worker_call_seconds_sum", provider] == pytest.approx(400.5)
    refused = provider | {("verdict", "refused")}
    assert found["batchq_worker_calls_total", refused] == 2


def test_a_fleet_is_shown_with_its_queues_runs_and_providers(fleet: Fleet) -> None:
    found = {
        (name, tuple(sorted(value for _, value in labels))): amount
        for (name, labels), amount in samples(fleet_metrics(fleet)).items()
    }

    assert found["batchq_items_ended_total", ("", "ok")] == 3
    assert found["batchq_load", ("llm",)] == 12
    assert found["batchq_slots", ("llm",)] == 50
    assert found["batchq_processes", ("1", "worker")] == 2
    assert found["batchq_clock_skew_seconds", ("a",)] == 2.5
    assert found["batchq_run_items", ("left", "r")] == 6
    assert found["batchq_oldest_batch_seconds", ("r",)] == 12
    assert found["batchq_budget_spent_ratio", ("r",)] == 0.4
    assert found["batchq_provider_limit", ('deep"seek\n', "rpm")] == 300
    assert found["batchq_provider_waiting", ('deep"seek\n',)] == 3
    assert found["batchq_provider_available", ('deep"seek\n',)] == 0


def test_every_metric_of_the_dashboard_and_the_alerts_exists() -> None:
    names = {one.name for one in fleet_metrics(None)}
    names |= {one.name for one in counted_metrics(WORKER, {})}
    known = {"batchq_redis_up", "process_resident_memory_bytes"}
    for name in names:
        known |= {name, f"{name}_total", f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    rules = YAML(typ="safe").load((ROOT / "config/prometheus/batchq.rules.yaml").read_text())
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    board = json.loads((ROOT / "config/grafana/batchq.json").read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]

    used = {name for expression in (*alerts, *shown) for name in NAME.findall(expression)}

    assert len(alerts) > 5
    assert len(shown) > 10
    assert used - known == set()
    assert all(name.startswith(FLEET) for name in names)
