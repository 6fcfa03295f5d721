"""A run stops at its budget, and goes on where it stopped once the budget is raised."""

from __future__ import annotations

import json
from typing import Any

MANIFEST = """\
version: 1
name: bounded
providers:
  sim:
    kind: openai
    base_url: "{url}"
    model: sim-1
    prices: {{input_per_1m: 1000, output_per_1m: 1000}}
steps:
  - name: first
    input: {{generate: 6}}
    options: {{max_tokens: 50}}
    prompt: |
      Describe the number {{number}}.
    output_schema:
      type: object
      properties: {{text: {{type: string}}}}
      required: [text]
  - name: second
    stages:
      - name: shorten
        options: {{max_tokens: 50}}
        prompt: |
          Shorten: {{text}}
        output_schema: {{type: object, properties: {{short: {{type: string}}}}, required: [short]}}
      - name: praise
        options: {{max_tokens: 50}}
        prompt: |
          Praise: {{short}}
{more}
"""


def bounded(project: Any, url: str, more: str = "") -> None:
    project.write("m.yaml", MANIFEST.format(url=url, more=more))


def seen(project: Any, run: str) -> dict[str, Any]:
    return json.loads(project.run("status", run, "--json").stdout)


def test_a_run_pauses_at_its_budget_and_a_larger_one_finishes_it_and_pays_nothing_twice(
    project: Any, simulator: Any
) -> None:
    server = simulator()
    bounded(project, server.url)

    paused = project.run("submit", "m.yaml", "--max-cost", "0.60", "--json")
    first = json.loads(paused.stdout)

    assert paused.returncode == 5, paused.stderr
    assert first["state"] == "paused"
    assert "the budget of $0.6000 is used up" in first["reason"]
    assert "batchq resume bounded@v0 --max-cost" in first["reason"]
    assert 0 < first["budget"]["spent_usd"] <= 0.60
    assert first["items"]["failed"] == 0

    resumed = project.run("resume", "bounded@v0", "--max-cost", "50", "--json")
    last = json.loads(resumed.stdout)

    assert resumed.returncode == 0, resumed.stderr
    assert last["items"]["ok"] == 12
    assert last["cost_usd"] == last["budget"]["spent_usd"] > first["budget"]["spent_usd"]
    assert last["calls"] == server.stats()["accepted"] == 18
    assert seen(project, "bounded@v0")["cost_usd"] == last["cost_usd"]

    redone = project.run("rerun", "bounded", "0", "--max-tokens", "60", "--json")
    state = json.loads(redone.stdout)

    assert redone.returncode == 5, redone.stderr
    assert "the budget of 60 tokens is used up" in state["reason"]
    assert (state["budget"]["usd"], state["budget"]["tokens"]) == (50, 60)


def test_a_raised_budget_is_kept_by_the_next_resume(project: Any, simulator: Any) -> None:
    bounded(project, simulator().url, "budget: {tokens: 300}")
    assert project.run("submit", "m.yaml").returncode == 5

    again = project.run("resume", "bounded@v0", "--max-tokens", "400", "--json")
    third = project.run("resume", "bounded@v0", "--json")

    assert again.returncode == third.returncode == 5
    assert json.loads(third.stdout)["budget"]["tokens"] == 400


def test_a_budget_that_is_to_fail_the_run_ends_it(project: Any, simulator: Any) -> None:
    bounded(project, simulator().url, "budget: {tokens: 300, on_exceeded: fail}")

    ended = project.run("submit", "m.yaml", "--json")

    assert ended.returncode == 4, ended.stderr
    assert json.loads(ended.stdout)["state"] == "failed"


def test_a_budget_in_dollars_for_a_model_without_a_price_is_refused(project: Any) -> None:
    project.write(
        "m.yaml",
        """\
        name: unpriced
        budget: {usd: 5}
        providers:
          own: {kind: openai, base_url: "http://127.0.0.1:9/v1", model: mine}
        steps:
          - {name: a, input: {generate: 2}, provider: own, prompt: "Say {number}\\n"}
        """,
    )

    refused = project.run("submit", "m.yaml")

    assert refused.returncode == 2
    assert "m.yaml:4" in refused.stderr
    assert "no price is known for mine" in refused.stderr
