"""How fast items go out: batches at once, time between batches, calls at once."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

MANIFEST = """\
version: 1
name: paced
providers:
  sim: {{kind: openai, base_url: "{url}", model: sim-1{limits}}}
steps:
  - name: classify
    input: {{generate: {items}}}
    prompt: |
      Classify indicator {{number}}.
    {pacing}
"""


def paced(project: Any, url: str, items: int, pacing: str = "", limits: str = "") -> None:
    text = MANIFEST.format(url=url, items=items, pacing=pacing, limits=limits)
    project.write("m.yaml", text)


def peak_of(server: Any) -> int:
    return int(server.stats()["peak_in_flight"])


@pytest.mark.parametrize(("concurrent_batches", "at_once"), [(4, 20), (8, 40)])
def test_batches_of_five_run_so_many_at_once_and_never_more(
    project: Any, simulator: Any, concurrent_batches: int, at_once: int
) -> None:
    server = simulator(latency_ms=1500)
    pacing = f"batch_size: 5\n    concurrent_batches: {concurrent_batches}"
    paced(project, server.url, 2 * at_once, pacing)

    done = project.run("submit", "m.yaml")

    assert f"{2 * at_once} ok, 0 failed" in done.stdout, done.stderr
    assert "classify 0/" in done.stderr
    assert f"{2 * at_once}, Group 1/2" in done.stderr
    # All slots are seldom busy in the same instant here; default threads would end at 25.
    assert 0.8 * at_once < peak_of(server) <= at_once


def test_a_wait_lies_between_the_batches_and_is_counted_down(project: Any, simulator: Any) -> None:
    server = simulator()
    paced(project, server.url, 4, "batch_size: 2\n    wait: 8s")

    done = project.run("submit", "m.yaml")

    assert "4 ok, 0 failed" in done.stdout, done.stderr
    assert "2/4, 1/2 batches, next in " in done.stderr
    sent = [
        datetime.fromisoformat(line.split()[1])
        for line in project.run("logs", "paced").stdout.splitlines()
        if "batch sent" in line
    ]
    gaps = [(after - before).total_seconds() for before, after in pairwise(sent)]
    assert len(gaps) == 1
    assert gaps[0] >= 8.0 - 0.001  # the log rounds to milliseconds


@pytest.mark.parametrize(
    ("options", "variable", "limits", "allowed"),
    [
        ([], "", ", limits: {concurrency: 3}", 3),
        ([], "4", ", limits: {concurrency: 3}", 4),
        (["--concurrency", "2"], "4", ", limits: {concurrency: 3}", 2),
    ],
    ids=["the manifest", "the variable before it", "the option before both"],
)
def test_who_says_how_many_calls_are_in_flight(
    project: Any, simulator: Any, options: list[str], variable: str, limits: str, allowed: int
) -> None:
    server = simulator(latency_ms=300)
    paced(project, server.url, 5 * allowed, limits=limits)

    done = project.run("submit", "m.yaml", "--json", *options, env={"CONCURRENCY": variable})

    assert json.loads(done.stdout)["items"]["ok"] == 5 * allowed, done.stderr
    assert peak_of(server) == allowed


def test_a_variable_that_is_no_number_is_refused_by_its_name(project: Any) -> None:
    paced(project, "http://127.0.0.1:9", 1)

    done = project.run("submit", "m.yaml", env={"CONCURRENCY": "many"})

    assert done.returncode == 2
    assert "CONCURRENCY" in done.stderr
    assert not (project.folder / "outputs").exists()
