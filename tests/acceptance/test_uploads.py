"""A whole run of `mode: auto`, as a person makes one."""

from __future__ import annotations

import json
from typing import Any

MANIFEST = """\
name: halves
providers:
  sim:
    kind: simulator
    limits: {concurrency: 100}
    prices: {input_per_1m: 2, output_per_1m: 8}
    simulator: {latency_ms: 5, batch_s: 20, batch_expire_rate: 0.2, batch_duplicate_rate: 0.1,
                batch_unknown_rate: 0.1}
steps:
  - {name: ask, input: {generate: 100}, prompt: "Say {number}\\n.", options: {max_tokens: 40},
     batch_size: 10, mode: auto, deadline: 9s}
"""


def test_what_uploads_do_not_answer_by_the_deadline_goes_online(
    project: Any,
) -> None:
    project.write("manifest.yaml", MANIFEST)

    plan = json.loads(project.run("plan", "manifest.yaml", "--json").stdout)
    done = project.run("submit", "manifest.yaml", "--json")
    shown = project.run("show", "halves")

    seen, terms = json.loads(done.stdout), plan["steps"][0]["uploads"]
    assert (seen["state"], seen["items"]["ok"], seen["calls"]) == ("completed", 100, 100)
    assert 0 < seen["upload_calls"] < 100
    assert terms["cost_usd"] * 2 == terms["online_cost_usd"]
    assert seen["cost_usd"] <= terms["online_cost_usd"]
    online = 100 - seen["upload_calls"]
    assert f"{seen['upload_calls']} calls in uploads for $" in shown.stdout
    assert f"{online} online for $" in shown.stdout
