"""Items that wait for an exhausted provider leave their slots to others."""

from __future__ import annotations

import json


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
    [use] = [one for one in cluster.services.tools.limiter.usage() if one.name == "slow"]
    assert use.granted < 6
