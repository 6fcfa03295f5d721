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

    approved = project.run("approve", "careful@v0", "--max-cost", "50", "--json")
    last = json.loads(approved.stdout)

    assert approved.returncode == 0, approved.stderr
    assert (last["items"]["ok"], last["items"]["failed"]) == (10, 0)
    assert last["budget"]["usd"] == 50
    assert server.stats()["accepted"] == 10


def test_a_canary_that_is_to_go_on_does_so_by_itself(project: Any, simulator: Any) -> None:
    server = simulator()
    project.write("m.yaml", MANIFEST.format(url=server.url, then="go"))

    done = project.run("submit", "m.yaml")

    assert done.returncode == 0, done.stderr
    assert "10 ok, 0 failed" in done.stdout
    refused = project.run("approve", "careful@v0")
    assert "nothing to do" in refused.stdout + refused.stderr


def test_a_run_that_waits_for_a_word_shows_what_it_found(project: Any, simulator: Any) -> None:
    project.write("m.yaml", MANIFEST.format(url=simulator().url, then="ask"))
    planned = project.run("plan", "m.yaml").stdout
    submitted = project.run("submit", "m.yaml")

    status = project.run("status", "careful@v0").stdout
    shown = json.loads(project.run("show", "careful@v0", "--json").stdout)

    assert "canary 3 items first, then it asks" in planned
    assert "batchq approve careful@v0, or batchq cancel careful@v0" in submitted.stdout
    assert "canary   asking: 3 items, 0 failed, $" in status
    assert shown["canary"]["state"] == "asking"
    assert shown["canary"]["rest"]["items"] == 7
    assert shown["canary"]["rest"]["cost_usd"] > shown["canary"]["cost_usd"] > 0


def test_a_run_that_waits_for_a_word_can_be_ended(project: Any, simulator: Any) -> None:
    server = simulator()
    project.write("m.yaml", MANIFEST.format(url=server.url, then="ask"))
    project.run("submit", "m.yaml")

    cancelled = project.run("cancel", "careful@v0")
    again = project.run("cancel", "careful@v0")

    assert cancelled.returncode == 0, cancelled.stderr
    status = json.loads(project.run("status", "careful@v0", "--json").stdout)
    assert (status["state"], status["items"]["ok"]) == ("cancelled", 3)
    assert len(project.read("outputs/careful/v0/collated/01_describe.json")) == 3
    assert "cancelled already" in again.stderr
    assert again.returncode == 2
    assert not list((project.folder / ".batchq" / "runs").glob("*/redis"))


def test_who_says_yes_in_advance_is_not_asked(project: Any, simulator: Any) -> None:
    project.write("m.yaml", MANIFEST.format(url=simulator().url, then="ask"))

    done = project.run("submit", "m.yaml", "--yes")

    assert done.returncode == 0, done.stderr
    assert "canary   passed: 3 items, 0 failed" in done.stdout


def test_a_retry_of_first_items_that_failed_is_judged_anew(project: Any) -> None:
    project.write("mine.py", "def half(item):\n    return 1 / (item['number'] % 2)\n")
    project.write(
        "m.yaml",
        "name: careful\ncanary: {items: 4, then: go}\nconfig: {retry: {max_retries: 0}}\n"
        'steps:\n  - {name: half, input: {generate: 10}, task: "mine:half"}\n',
    )

    paused = project.run("submit", "m.yaml")
    project.write("mine.py", "def half(item):\n    return 1 / (item['number'] % 2 + 1)\n")
    done = project.run("retry", "careful@v0")

    assert paused.returncode == 5
    assert "2 of the first 4 items failed, 0 may" in paused.stdout
    assert done.returncode == 0, done.stderr
    assert "10 ok, 0 failed" in done.stdout
    assert "canary   passed: 4 items, 0 failed" in done.stdout
