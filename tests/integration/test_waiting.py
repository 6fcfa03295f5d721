"""Items that wait for an exhausted provider leave their slots to others."""

from __future__ import annotations

import json

from click.testing import CliRunner

from batchq.cli.runs import status_command
from batchq.limiter import RedisLimiter
from batchq.limiter.desk import ProviderUse
from batchq.progress import RunState
from batchq.queue import control


def test_an_exhausted_provider_keeps_no_item_of_another_from_running(
    cluster, simulator, redis_client
) -> None:
    url = simulator().url
    (cluster.folder / "i.json").write_text(json.dumps([{"n": n} for n in range(12)]))
    (cluster.folder / "p.md").write_text("Say {n}")
    cluster.coordinator()
    cluster.worker("-Q", "batchq.llm", "-P", "threads", "-c", "2")

    def manifest(name: str, limits: str) -> str:
        return f"""
            name: {name}
            providers:
              {name}: {{kind: openai, base_url: "{url}", model: m, limits: {limits}}}
            steps:
              - {{name: ask, input: i.json, prompt: p.md, batch_size: 12}}
            """

    slow = cluster.submit(manifest("slow", "{rates: [{requests: 1, per: 12s}]}"))
    cluster.wait_for(
        lambda: redis_client.hlen(f"batchq:{{{slow.run}}}:out:1:0") > 0, "it began", 20
    )
    free = cluster.submit(manifest("free", "{rpm: 6000}"))

    folder = cluster.finish(free)

    assert folder.summary(1).ok == 12
    ledger = cluster.services.ledger
    assert ledger.counters(slow.run, 1)["ok"] < 12
    assert ledger.counters(slow.run, 1)["failed"] == 0
    [use] = [one for one in RedisLimiter(cluster.services.redis).usage() if one.name == "slow"]
    assert use.granted < 6


def test_a_slow_provider_with_a_cap_leaves_slots_to_a_fast_one(cluster, simulator) -> None:
    slow, fast = simulator(latency_ms=6_000).url, simulator().url
    cluster.coordinator()
    cluster.worker("-Q", "batchq.llm", "-P", "threads", "-c", "90")

    def manifest(name: str, url: str, items: int, limits: str) -> str:
        return f"""
            name: {name}
            providers:
              {name}: {{kind: openai, base_url: "{url}", model: m, limits: {limits}}}
            steps:
              - {{name: ask, input: {{generate: {items}}}, prompt: "Say\\n{{number}}",
                 batch_size: {items}}}
            """

    held = cluster.submit(manifest("slow", slow, 180, "{concurrency: 2}"))
    ledger = cluster.services.ledger
    cluster.wait_for(lambda: _away(cluster, held.run), "items wait elsewhere", 30)
    quick = cluster.submit(manifest("fast", fast, 60, "{}"))
    folder = cluster.finish(quick)

    assert folder.summary(1).ok == 60
    assert ledger.counters(held.run, 1)["ok"] < 10, "the slow calls have hardly begun"
    control.stop(held.run, RunState.CANCELLED, "enough", cluster.services)


def test_a_run_under_a_tight_limit_says_so_and_pauses_although_items_wait_elsewhere(
    cluster, simulator, monkeypatch
) -> None:
    url = simulator().url
    (cluster.folder / "i.json").write_text(json.dumps([{"n": n} for n in range(40)]))
    (cluster.folder / "p.md").write_text("Say {n}")
    cluster.coordinator()
    cluster.worker("-Q", "batchq.llm", "-P", "threads", "-c", "8")
    run = cluster.submit(f"""
        name: tight
        providers:
          slow: {{kind: openai, base_url: "{url}", model: m, limits: {{rpm: 30}}}}
        steps:
          - {{name: ask, input: i.json, prompt: p.md, batch_size: 40}}
        """)
    cluster.wait_for(lambda: _away(cluster, run.run), "items wait elsewhere", 20)
    [use] = _away(cluster, run.run)
    monkeypatch.setenv("BATCHQ_BROKER_URL", cluster.services.settings.broker_url)
    monkeypatch.setenv("BATCHQ_HOME", str(cluster.services.settings.home))

    told = json.loads(CliRunner().invoke(status_command, [run.run, "--json"]).stdout)
    shown = CliRunner().invoke(status_command, [run.run]).stdout
    control.stop(run.run, RunState.PAUSED, "enough", cluster.services)
    cluster.wait_for(lambda: cluster.services.ledger.is_resting(run.run), "it is paused", 30)

    assert told["bound_by"] == "slow rpm"
    assert "bound by slow rpm" in shown
    assert told["items"]["in_flight"] <= 8
    assert use.blocked_by == "rpm"
    assert not cluster.services.ledger.open_batches(run.run)


def _away(cluster, run: str) -> list[ProviderUse]:
    return [one for one in RedisLimiter(cluster.services.redis).usage() if run in one.away]
