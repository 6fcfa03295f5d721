from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

from batchq.progress import RunState
from batchq.queue import control

THREADS = ("-P", "threads", "-c", "8")
CALL_USD = 0.05  # 50 tokens at most, a thousand dollars a million
MANIFEST = """
    name: shared
    budget: {{usd: {usd}}}
    providers:
      sim:
        kind: openai
        base_url: "{url}"
        model: sim-1
        prices: {{input_per_1m: 0, output_per_1m: 1000}}
    steps:
      - name: describe
        input: {{generate: 60}}
        options: {{max_tokens: 50}}
        batch_size: 20
        prompt: |
          Describe the number {{number}}.
    """


def wait_for_pause(cluster: Any, info: Any) -> None:
    ledger = cluster.services.ledger
    cluster.wait_for(lambda: ledger.is_resting(info.run), f"it is paused: {cluster.logs()}", 60)
    assert ledger.state(info.run) is RunState.PAUSED


def raised(info: Any, usd: float) -> Any:
    budget = replace(info.plan.budget, nusd=round(usd * 1e9))
    return replace(info, plan=replace(info.plan, budget=budget))


def test_two_workers_share_a_budget_and_a_larger_one_pays_for_the_rest_only(cluster, simulator):
    server = simulator(latency_ms=30)
    cluster.coordinator()
    cluster.worker(*THREADS)
    cluster.worker(*THREADS)
    budgets = cluster.services.budgets

    info = cluster.submit(MANIFEST.format(url=server.url, usd=0.6))
    wait_for_pause(cluster, info)
    first = budgets.use(info.run)

    assert first.held_nusd == 0
    assert 0.6 - CALL_USD < first.spent_nusd / 1e9 <= 0.6
    reason = cluster.services.ledger.about(info.run)["reason"]
    assert reason.startswith("the budget of $0.6000 is used up")
    assert "batchq resume shared@v0 --max-cost 0.9" in reason

    control.resume(raised(info, 100), cluster.services, is_private=False)
    folder = cluster.finish(info)

    summary = folder.summary(1)
    assert (summary.ok, summary.failed, summary.retries) == (60, 0, 0)
    assert budgets.use(info.run).spent_nusd == summary.usage.cost_nusd > first.spent_nusd
    assert server.stats()["accepted"] == summary.usage.calls == 60


def test_what_a_killed_worker_held_is_free_for_the_others(cluster, simulator):
    server = simulator(latency_ms=600)
    cluster.coordinator()
    cluster.worker(*THREADS)
    budgets = cluster.services.budgets
    info = cluster.submit(MANIFEST.format(url=server.url, usd=4).replace("60", "12"))
    cluster.wait_for(lambda: budgets.use(info.run).held_nusd > 0, "calls are in flight", 30)

    cluster.children[-1].send_signal(signal.SIGKILL)
    cluster.worker(*THREADS)
    folder = cluster.finish(info)

    assert folder.summary(1).ok == 12
    assert budgets.use(info.run).spent_nusd == folder.summary(1).usage.cost_nusd
