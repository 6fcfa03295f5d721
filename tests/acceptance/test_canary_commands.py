"""A few items first: what they cost is shown, and the others wait for a word."""

from __future__ import annotations

import json
from typing import Any

MANIFEST = """\
version: 1
name: careful
canary: {{items: 3, then: {then}}}
providers:
  sim:
    kind: openai
    base_url: "{url}"
    model: sim-1
    prices: {{input_per_1m: 1000, output_per_1m: 1000}}
steps:
  - name: describe
    input: {{generate: 10}}
    prompt: |
      Describe the number {{number}}.
"""


def test_the_others_wait_until_they_are_approved(project: Any, simulator: Any) -> None:
    server = simulator()
    project.write("m.yaml", MANIFEST.format(url=server.url, then="ask"))

    asked = project.run("submit", "m.yaml", "--json")
    state = json.loads(asked.stdout)

    assert asked.returncode == 5, asked.stderr
    assert state["reason"].startswith("canary: 3 items, 0 failed, $")
    assert "7 items left: about $" in state["reason"]
    assert "batchq approve careful@v0" in state["reason"]
    assert server.stats()["accepted"] == 3

    still = project.run("resume", "careful@v0")
    assert still.returncode == 5
    assert server.stats()["accepted"] == 3

    approved = project.run("approve", "careful@v0")

    assert approved.returncode == 0, approved.stderr
    assert "10 ok, 0 failed" in approved.stdout
    assert server.stats()["accepted"] == 10


def test_a_canary_that_is_to_go_on_does_so_by_itself(project: Any, simulator: Any) -> None:
    server = simulator()
    project.write("m.yaml", MANIFEST.format(url=server.url, then="go"))

    done = project.run("submit", "m.yaml")

    assert done.returncode == 0, done.stderr
    assert "10 ok, 0 failed" in done.stdout
    refused = project.run("approve", "careful@v0")
    assert "nothing to do" in refused.stdout + refused.stderr
