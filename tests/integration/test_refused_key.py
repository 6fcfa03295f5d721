"""A key that is refused: the run stands still once, and goes on when the key is mended."""

from __future__ import annotations

import json
import sys

from batchq.__main__ import main
from batchq.progress import RunState
from batchq.store import RunFolder

ITEMS = 60


def test_a_run_that_a_bad_key_paused_goes_on_once_the_key_is_mended(
    cluster, simulator, monkeypatch, capsys
) -> None:
    server = simulator(api_keys=["right"], latency_ms=50)
    key = cluster.folder / "key"
    key.write_text("wrong")
    monkeypatch.setenv("SIM_KEY_FILE", str(key))
    monkeypatch.setenv("BATCHQ_BROKER_URL", cluster.services.settings.broker_url)
    monkeypatch.setenv("BATCHQ_HOME", str(cluster.services.settings.home))
    (cluster.folder / "i.json").write_text(json.dumps([{"n": n} for n in range(ITEMS)]))
    (cluster.folder / "p.md").write_text("Say {n}")
    cluster.coordinator()
    for _ in range(2):
        cluster.worker("-Q", "batchq.llm", "-P", "threads", "-c", "8")
    ledger = cluster.services.ledger

    run = cluster.submit(f"""
        name: keyed
        providers:
          sim: {{kind: openai, base_url: "{server.url}", model: m, api_key_env: SIM_KEY}}
        steps:
          - {{name: ask, input: i.json, prompt: p.md, batch_size: 20, concurrent_batches: 3}}
        """)
    cluster.wait_for(lambda: ledger.is_resting(run.run), "it is paused", 30)
    ledger.look_at(run.run)  # as the end of a batch does that comes after the others
    cluster.wait_for(lambda: ledger.is_resting(run.run), "it is looked at again", 30)
    folder = RunFolder.open(run.folder)
    reason = ledger.about(run.run)["reason"]
    pauses = [one for one in folder.read_log() if one["event"] == "run paused"]
    counted = ledger.counters(run.run, 1)
    key.write_text("right")
    monkeypatch.setattr(sys, "argv", ["batchq", "unpause", "keyed"])
    code = main()

    assert "401" in reason
    assert "SIM_KEY" in reason
    assert len(pauses) == 1
    assert (counted.get("ok", 0), counted.get("failed", 0)) == (0, 0)
    assert code == 0, capsys.readouterr()
    assert cluster.state(run) in (None, RunState.COMPLETED)
    summary = folder.summary(1)
    assert (summary.ok, summary.failed, summary.usage.calls) == (ITEMS, 0, ITEMS)
