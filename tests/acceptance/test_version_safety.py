"""What must hold of versions when things go wrong: stops, retries, kills, two commands at once."""

from __future__ import annotations

import json
import signal
import sqlite3
import textwrap
from pathlib import Path
from typing import Any

import pytest

HOME = "outputs/notes"
TASKS = """
    import time
    from pathlib import Path

    HERE = Path(__file__).parent

    def note(item):
        with open(HERE / "calls.txt", "a") as calls:
            calls.write(item["id"] + "\\n")
        if item["id"] in (HERE / "bad.txt").read_text().split():
            raise ValueError("no such colour")
        while (HERE / "wait").exists() and item["id"] == "n5":
            time.sleep(0.02)
        return {"seen": item["id"]}

    def report(rows):
        if (HERE / "no_report").exists():
            raise ValueError("no ink")
        return {"rows": len(rows)}
"""
MANIFEST = """
    name: notes
    steps:
      - name: note
        input: items.json
        id_field: id
        task: "note_tasks:note"
        output_file: notes.json
        batch_size: 2
        concurrent_batches: 1
        retry: {max_retries: 0}
"""
REPORT = """
      - {name: report, task: "note_tasks:report", once: true, retry: {max_retries: 0}}
"""


@pytest.fixture
def notes(project: Any) -> Any:
    project.write("items.json", [{"id": f"n{number}"} for number in range(10)])
    project.write("note_tasks.py", textwrap.dedent(TASKS))
    project.write("bad.txt", "")
    project.write("m.yaml", textwrap.dedent(MANIFEST))
    return project


def calls(notes: Any) -> list[str]:
    path: Path = notes.folder / "calls.txt"
    return path.read_text().split() if path.exists() else []


def rows(notes: Any, version: str = "v0") -> list[str]:
    return [row["seen"] for row in notes.read(f"{HOME}/{version}/collated/01_notes.json")]


@pytest.mark.parametrize(
    ("rule", "bad", "most_calls"),
    [("stop_on_error: true", "n2", 4), ("max_failures: 1", "n0 n1 n2", 4)],
)
def test_a_step_that_may_not_fail_stops_at_once_and_keeps_what_is_done(
    notes: Any, rule: str, bad: str, most_calls: int
) -> None:
    notes.write("bad.txt", bad)
    notes.write("m.yaml", textwrap.dedent(MANIFEST) + f"    {rule}\n")

    done = notes.run("submit", "m.yaml", "--concurrency", "1")

    assert done.returncode == 4, done.stderr
    assert len(calls(notes)) <= most_calls
    errors = [row["item_id"] for row in notes.read(f"{HOME}/v0/01_errors.json")]
    assert set(errors) <= set(bad.split())
    assert rows(notes) == [one for one in calls(notes) if one not in errors]
    assert notes.read(f"{HOME}/v0/metadata.json")["status"] == "failed"
    assert not (notes.folder / HOME / "latest").exists()
    assert "notes@v0  failed" in done.stdout
    assert "next     mend the cause, then batchq retry notes@v0" in done.stdout


def test_a_step_that_saw_all_items_and_failed_is_redone_alone(notes: Any) -> None:
    notes.write("m.yaml", textwrap.dedent(MANIFEST) + textwrap.dedent(REPORT).replace("-", "  -"))
    notes.write("no_report", "")
    assert notes.run("submit", "m.yaml").returncode == 3
    (notes.folder / "no_report").unlink()
    before = calls(notes)

    preview = notes.run("rerun", "notes", "--failed", "--dry-run")
    done = notes.run("rerun", "notes", "--failed")

    assert "note: taken over" in preview.stdout
    assert done.returncode == 0, done.stderr
    assert calls(notes) == before
    assert notes.read(f"{HOME}/v1/collated/02_report.json") == {"rows": 10}
    assert len(rows(notes, "v1")) == 10
    assert not (notes.folder / HOME / "v1/02_errors.json").exists()


PAID = """
    name: notes
    providers:
      model:
        kind: openai
        base_url: %s
        model: small
        prices: {input_per_1m: 1, output_per_1m: 2}
    steps:
      - name: note
        input: items.json
        id_field: id
        prompt: "Say a word about {id},\\nas JSON."
        provider: model
        output_schema: {type: object}
        output_file: notes.json
        retry: {max_retries: 0}
"""


def test_what_failed_attempts_cost_stays_in_every_total_after_a_retry(
    notes: Any, simulator: Any
) -> None:
    provider = simulator(garbage_rate=0.5, latency_ms=1)
    notes.write("m.yaml", textwrap.dedent(PAID) % provider.url)
    first = notes.run("submit", "m.yaml")
    assert first.returncode == 3, first.stderr
    failed = [row["item_id"] for row in notes.read(f"{HOME}/v0/01_errors.json")]

    done = notes.run("retry", "notes")

    assert done.returncode in (0, 3), done.stderr
    paid = 10 + len(failed)
    assert provider.stats()["accepted"] == paid
    totals = notes.read(f"{HOME}/v0/metadata.json")["totals"]
    status = json.loads(notes.run("status", "notes", "--json").stdout)
    story = json.loads(notes.run("explain", "notes", failed[0], "--json").stdout)
    with sqlite3.connect(notes.folder / ".batchq/catalog.sqlite") as catalog:
        of_run = catalog.execute("SELECT calls, cost_nusd FROM runs").fetchone()
        of_batches = catalog.execute("SELECT sum(calls), sum(cost_nusd) FROM batches").fetchone()
    assert [totals["calls"], status["calls"], of_run[0], of_batches[0]] == [paid] * 4
    assert totals["cost_usd"] * 1e9 == pytest.approx(of_run[1])
    assert of_run == of_batches
    assert story["calls"] == 2
    assert [one["round"] for one in story["steps"][0]["attempts"]] == [1, 2]
    assert "retried" in notes.run("explain", "notes", failed[0]).stdout


def test_of_two_resumes_at_once_one_is_refused_and_nothing_runs_twice(
    notes: Any, wait_for: Any
) -> None:
    notes.write("wait", "")
    soon_dead = {"BATCHQ_LEASE_TTL_S": "3"}
    submit = notes.start("submit", "m.yaml", "--concurrency", "1", env=soon_dead)
    wait_for(lambda: "n5" in calls(notes), "the fifth item runs", 40)
    submit.send_signal(signal.SIGKILL)
    submit.wait()
    first = notes.start("resume", "notes", env=soon_dead)
    wait_for(lambda: calls(notes).count("n5") == 2, "the first resume runs it again", 40)

    second = notes.run("resume", "notes")
    (notes.folder / "wait").unlink()
    out, err = first.communicate(timeout=60)

    assert second.returncode == 2, second.stderr
    assert "notes@v0 runs in another terminal: `batchq watch notes@v0`" in second.stderr
    assert first.returncode == 0, out + err
    assert rows(notes) == [f"n{number}" for number in range(10)]
    others = [one for one in calls(notes) if one != "n5"]
    assert sorted(others) == sorted(set(others))


def test_what_a_submit_that_was_killed_left_of_its_version_trips_nobody(notes: Any) -> None:
    assert notes.run("submit", "m.yaml").returncode == 0
    half = notes.folder / HOME / "v1"
    (half / "state/tmp").mkdir(parents=True)
    (half / "state/01_items.jsonl").write_text('{"id": "n0", "in')

    done = [
        notes.run(*command)
        for command in (
            ("list", "notes", "--all"),
            ("rerun", "notes", "n3"),
            ("compare", "notes", "v0", "v2"),
            ("catalog", "rebuild"),
            ("show", "notes@latest"),
        )
    ]

    assert [one.returncode for one in done] == [0] * 5, [one.stderr for one in done]
    assert (notes.folder / HOME / "latest").readlink() == Path("v2")
    assert "2 runs" in done[3].stdout
    missing = notes.run("show", "notes@v1")
    assert missing.returncode == 7
    assert "notes@v0" in missing.stderr


def test_a_collated_file_that_was_edited_by_hand_is_said_and_left_out(notes: Any) -> None:
    assert notes.run("submit", "m.yaml").returncode == 0
    path = notes.folder / HOME / "v0/collated/01_notes.json"
    path.write_text(path.read_text().replace('"n1"', '"by hand"'))

    rerun = notes.run("rerun", "notes", "n3")
    compare = notes.run("compare", "notes", "v0", "v1")

    assert rerun.returncode == 0, rerun.stderr
    assert "by hand" not in rows(notes, "v1")
    for said in (rerun.stderr, compare.stderr):
        assert "v0/collated/01_notes.json was changed after the run wrote it" in said
        assert "keep it in a file of your own" in said
    assert "by hand" in path.read_text()
