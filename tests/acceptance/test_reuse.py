"""What a submit takes over from the version before, what it runs, and what `plan` says of it."""

from __future__ import annotations

import json
import textwrap
from collections import Counter

import pytest

HOME = "outputs/words"

TASKS = """
    from pathlib import Path

    HERE = Path(__file__).parent

    def upper(item, params):
        with open(HERE / "calls.txt", "a") as calls:
            calls.write(item["id"] + "\\n")
        if (HERE / "strict").exists() and item["word"] == "bad":
            raise ValueError("a bad word")
        return {"text": item["word"].upper() + params.get("suffix", "")}

    def double(item):
        with open(HERE / "calls.txt", "a") as calls:
            calls.write("double " + item["text"] + "\\n")
        if (HERE / "strict").exists() and item["text"] == "ONE":
            raise ValueError("no one")
        return {"twice": item["text"] * 2}

    def count(rows):
        return {"rows": len(rows)}
"""

MANIFEST = """
    name: words
    config: {skip_existing: true}
    steps:
      - name: upper
        input: words.json
        id_field: id
        output_id_field: number
        task: "word_tasks:upper"
        batch_size: 3
        retry: {max_retries: 0}
      - name: double
        id_field: number
        task: "word_tasks:double"
        retry: {max_retries: 0}
      - name: count
        once: true
        task: "word_tasks:count"
"""
WORDS = ["zero", "one", "bad", "three", "four"]
PROMPT = """
    name: told
    providers:
      sim: {kind: simulator, model: s, cache: true, simulator: {latency_ms: 1}}
    steps:
      - name: tell
        input: words.json
        id_field: id
        prompt: prompts/tell.md
        options: {temperature: 0}
"""


@pytest.fixture
def words(project):
    project.write("words.json", [{"id": f"w{n}", "word": word} for n, word in enumerate(WORDS)])
    project.write("word_tasks.py", textwrap.dedent(TASKS))
    project.write("m.yaml", textwrap.dedent(MANIFEST))
    return project


def reuse(project, *arguments: str) -> dict[str, dict[str, int]]:
    """What `plan` says of each step: how many items for which reason."""
    done = project.run("plan", "m.yaml", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return {one["step"]: one["reasons"] for one in json.loads(done.stdout)["reuse"]["steps"]}


def test_what_has_an_output_is_taken_over_and_each_step_runs_what_it_lacks(words, calls):
    words.write("strict", "")
    assert words.run("submit", "m.yaml").returncode == 3
    assert calls() == [
        *("double FOUR", "double ONE", "double THREE", "double ZERO"),
        *("w0", "w1", "w2", "w3", "w4"),
    ]
    (words.folder / "strict").unlink()

    planned = reuse(words)
    listed = words.run("plan", "m.yaml", "--items").stdout
    done = words.run("submit", "m.yaml")

    assert planned["upper"] == {"taken over from v0": 4, "failed in v0: task": 1}
    assert planned["double"] == {
        "taken over from v0": 3,
        "failed in v0: task": 1,
        "its input is new": 1,
    }
    assert [line.split(maxsplit=3) for line in listed.splitlines()][2:4] == [
        ["upper", "w1", "reuse", "taken over from v0"],
        ["upper", "w2", "run", "failed in v0: task"],
    ]
    assert done.returncode == 0, done.stderr
    assert "upper: 4 of 5 items reused: taken over from v0 (4), failed in v0: task (1)" in (
        done.stderr
    )
    assert calls() == ["double BAD", "double ONE", "w2"]
    rows = words.read(f"{HOME}/v1/collated/01_upper.json")
    assert [(row["number"], row["text"]) for row in rows] == [
        (number, word.upper()) for number, word in enumerate(WORDS, 1)
    ]
    twice = words.read(f"{HOME}/v1/collated/02_double.json")
    assert [row["twice"] for row in twice] == [word.upper() * 2 for word in WORDS]
    assert words.read(f"{HOME}/v1/collated/03_count.json") == {"rows": 5}
    assert words.read(f"{HOME}/v1/metadata.json")["base_version"] == "v0"
    shown = words.run("show", "words@v1", "w1", "--json")
    assert shown.returncode == 0, shown.stderr

    again = words.run("submit", "m.yaml")

    assert (again.returncode, calls()) == (0, [])
    assert "nothing to do: words@v1 has all of it" in again.stderr
    assert not (words.folder / HOME / "v2").exists()
    assert words.run("plan", "m.yaml", "--detailed-exitcode").returncode == 0


def test_items_that_are_new_changed_or_gone_are_told_apart(words, calls):
    words.run("submit", "m.yaml")
    calls()
    changed = [{"id": f"w{n}", "word": word} for n, word in enumerate([*WORDS, "five"])]
    changed[1]["word"] = "uno"
    words.write("words.json", changed)

    planned = reuse(words)["upper"]
    done = words.run("submit", "m.yaml")

    assert planned.pop("taken over from v0") == 4
    assert planned.pop("never ran: not in v0") == 1
    (reason,) = planned
    assert reason.startswith("input changed ")
    assert done.returncode == 0, done.stderr
    assert calls() == ["double FIVE", "double UNO", "w1", "w5"]
    rows = words.read(f"{HOME}/v1/collated/02_double.json")
    assert [row["twice"] for row in rows][:2] == ["ZEROZERO", "UNOUNO"]
    assert words.read(f"{HOME}/v1/collated/03_count.json") == {"rows": 6}

    fewer = words.run("submit", "m.yaml", "--only", "w0,w5")

    assert fewer.returncode == 0, fewer.stderr
    assert calls() == []
    rows = words.read(f"{HOME}/v2/collated/02_double.json")
    assert [row["twice"] for row in rows] == ["ZEROZERO", "FIVEFIVE"]
    assert words.read(f"{HOME}/v2/collated/03_count.json") == {"rows": 2}


def test_changed_work_runs_again_with_what_follows_from_it(words, calls):
    words.run("submit", "m.yaml")
    calls()
    text = (words.folder / "m.yaml").read_text()
    words.write("m.yaml", text.replace("name: double", "name: double\n    params: {suffix: x}"))

    planned = reuse(words)
    preview = words.run("rerun", "words", "w1", "--manifest", "m.yaml", "--dry-run")
    words.run("submit", "m.yaml")

    assert preview.stdout.splitlines()[:3] == [
        "would redo w1 of words@v0: they were named",
        "  upper: these items",
        "  double: these items; params changed: suffix",
    ]
    assert planned["upper"] == {"taken over from v0": 5}
    assert planned["double"] == {"params changed: suffix": 5}
    assert calls() == [f"double {word.upper()}" for word in sorted(WORDS)]
    assert words.read(f"{HOME}/v1/collated/03_count.json") == {"rows": 5}


def test_a_version_is_named_and_a_step_without_the_key_runs_again(words, calls):
    words.run("submit", "m.yaml")
    words.write("words.json", [{"id": "w0", "word": "other"}])
    words.run("submit", "m.yaml")
    calls()
    words.write("words.json", [{"id": f"w{n}", "word": word} for n, word in enumerate(WORDS)])
    text = textwrap.dedent(MANIFEST).replace("skip_existing: true", "skip_existing: false")
    words.write("m.yaml", text.replace("name: upper", "name: upper\n    batch_skip_existing: v0"))

    done = words.run("submit", "m.yaml")

    assert done.returncode == 0, done.stderr
    assert calls() == [f"double {word.upper()}" for word in sorted(WORDS)]
    assert words.read(f"{HOME}/v2/metadata.json")["base_version"] == "v0"
    missing = words.write(
        "m.yaml", text.replace("name: upper", "name: upper\n    skip_existing: v9")
    )
    refused = words.run("submit", missing.name)
    assert refused.returncode == 7
    assert "words has no v9; there are v0, v1, v2" in refused.stderr


def test_a_version_that_stopped_is_gone_on_with(words, calls):
    words.write("strict", "")
    text = textwrap.dedent(MANIFEST).replace(
        "batch_size: 3", "batch_size: 1\n    stop_on_error: true"
    )
    words.write("m.yaml", text.replace("batch_size: 1", "batch_size: 1\n    concurrent_batches: 1"))
    assert words.run("submit", "m.yaml").returncode == 4
    ran = calls()
    (words.folder / "strict").unlink()
    preview = words.run("resume", "words", "--dry-run")

    done = words.run("submit", "m.yaml")

    assert preview.stdout.splitlines() == [
        "would go on with words@v0",
        "  upper: 2 of 5 items, which have not ended; 1 failed, which `batchq retry` runs",
        "  double: all of it: its input is not there yet",
        "  count: all of it: its input is not there yet",
    ]
    assert done.returncode == 0, done.stderr
    assert "going on with words@v0, which stopped before its end" in done.stderr
    assert [path.name for path in (words.folder / HOME).glob("v*")] == ["v0"]
    again = Counter(one for one in calls() if not one.startswith("double"))
    assert again == Counter(["w0", "w1", "w2", "w3", "w4"]) - Counter(ran) + Counter(["w2"])


def test_a_plan_tells_kept_answers_and_changed_prompts_from_the_rest(words):
    words.write("prompts/tell.md", "Tell about {word}.")
    words.write("m.yaml", textwrap.dedent(PROMPT))
    assert reuse(words)["tell"] == {"never ran": 5}
    words.run("submit", "m.yaml")
    first = reuse(words)["tell"]

    anew = reuse(words, "--no-cache")["tell"]
    words.write("prompts/tell.md", "Tell all about {word}.")
    prompt = reuse(words)["tell"]
    words.write("prompts/tell.md", "Tell about {word}.")
    text = textwrap.dedent(PROMPT)
    words.write("m.yaml", text.replace("temperature: 0", "temperature: 1"))
    options = reuse(words)["tell"]
    words.write("m.yaml", text.replace("model: s", "model: t"))
    model = reuse(words)["tell"]

    assert first == {"cached answer": 5}
    assert anew == {"ok in v0; runs again without skip_existing": 5}
    (reason,) = prompt
    before, after = reason.removeprefix("prompt changed ").split(" -> ")
    assert (len(before), len(after), before != after) == (4, 4, True)
    assert options == {"options changed: temperature 0 -> 1": 5}
    assert model == {"model changed s -> t": 5}
    assert sorted(path.name for path in (words.folder / "outputs/told").iterdir()) == [
        "latest",
        "v0",
    ]
