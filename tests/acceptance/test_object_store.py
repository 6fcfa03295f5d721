"""The loop of seed 002 with all versions on an object store: a real S3 server over HTTP."""

from __future__ import annotations

import json
import textwrap

import pytest

TASKS = """
    import os
    import signal
    from pathlib import Path

    HERE = Path(__file__).parent

    def upper(item):
        with open(HERE / "calls.txt", "a") as calls:
            calls.write(item["id"] + "\\n")
        if (HERE / "strict").exists() and item["word"] == "bad":
            raise ValueError("a bad word")
        suffix = (HERE / "suffix").read_text() if (HERE / "suffix").exists() else ""
        return {"text": item["word"].upper() + suffix}

    def double(item):
        return {"twice": item["text"] * 2}

    def wait(item):
        import time

        with open(HERE / "calls.txt", "a") as calls:
            calls.write(item["id"] + "\\n")
        while item["id"] == "w5" and not (HERE / "go").exists():
            time.sleep(0.02)
        return {"text": item["word"]}
"""

MANIFEST = """
    name: words
    labels: {module: 4}
    notes: First run
    config: {output_dir: OUTPUT}
    steps:
      - name: upper
        input: words.json
        id_field: id
        output_id_field: number
        task: "word_tasks:upper"
        output_file: upper.json
        batch_size: 3
        retry: {max_retries: 0}
      - name: double
        id_field: number
        task: "word_tasks:double"
        output_file: double.json
"""
WORDS = ["zero", "one", "bad", "three", "four", "five", "six", "seven"]


@pytest.fixture
def words(project, object_store):
    project.write("words.json", [{"id": f"w{n}", "word": word} for n, word in enumerate(WORDS)])
    project.write("word_tasks.py", textwrap.dedent(TASKS))
    manifest = textwrap.dedent(MANIFEST).replace("OUTPUT", f"{object_store.bucket}/outputs")
    project.write("m.yaml", manifest)
    return project


@pytest.fixture
def read(object_store):
    """`read("v0/metadata.json")` reads an object of the pipeline."""
    home = f"{object_store.bucket}/outputs/words_module_4"
    return lambda path: json.loads(object_store.files().cat_file(f"{home}/{path}"))


def calls(project) -> list[str]:
    path = project.folder / "calls.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return sorted(lines)


def test_the_whole_loop_of_a_pipeline_runs_on_an_object_store(words, object_store, read):
    words.write("strict", "")
    planned = words.run("plan", "m.yaml")
    submitted = words.run("submit", "m.yaml")

    assert f"output {object_store.bucket}/outputs/words_module_4\n" in planned.stdout
    assert submitted.returncode == 3, submitted.stderr
    home = f"{object_store.bucket}/outputs/words_module_4"
    assert f"result   {home}/v0/collated/01_upper.json" in submitted.stdout
    assert f"errors   {home}/v0/01_errors.json" in submitted.stdout
    assert read("latest.json") == {"version": "v0"}
    assert [row["number"] for row in read("v0/collated/01_upper.json")] == [1, 2, 4, 5, 6, 7, 8]
    assert read("v0/items/w1/01_output.json") == {"number": 2, "source_id": "w1", "text": "ONE"}
    assert not (words.folder / "outputs").exists()

    failures = words.run("failures", "words_module_4")
    assert "a bad word" in failures.stdout

    (words.folder / "strict").unlink()
    words.write("suffix", "!")
    calls(words)
    rerun = words.run("rerun", "words_module_4", "w2", "w6", "--note", "Fixed", "--status", "beta")
    assert rerun.returncode == 0, rerun.stderr
    assert calls(words) == ["w2", "w6"]
    assert read("latest.json") == {"version": "v1"}
    texts = [row["text"] for row in read("v1/collated/01_upper.json")]
    assert texts == ["ZERO", "ONE", "BAD!", "THREE", "FOUR", "FIVE", "SIX!", "SEVEN"]
    assert read("v1/metadata.json")["base_version"] == "v0"

    assert "v1 (latest)" in words.run("list", "words_module_4", "--all").stdout
    compared = words.run("compare", "words_module_4", "v0", "v1", "--detail")
    assert compared.returncode == 0, compared.stderr
    assert "SIX!" in compared.stdout
    explained = words.run("explain", "words_module_4@v1", "w1")
    assert f"{home}/v0/items/w1/01_output.json" in explained.stdout
    assert words.run("mark", "words_module_4", "w3", "bad").returncode == 0
    assert words.run("label", "words_module_4", "v1", "final").returncode == 0
    assert read("v1/metadata.json")["pipeline_status"] == "final"
    assert "step done" in words.run("logs", "words_module_4").stdout

    before = words.run("list", "words_module_4", "--all", "--json").stdout
    for path in (words.folder / ".batchq").glob("catalog.sqlite*"):
        path.unlink()
    rebuilt = words.run("catalog", "rebuild", f"{object_store.bucket}/outputs")
    assert rebuilt.stdout == "2 runs and 6 batches are in the catalog\n", rebuilt.stderr
    assert words.run("list", "words_module_4", "--all", "--json").stdout == before


def test_a_run_that_was_killed_goes_on_from_what_the_object_store_has(words, wait_for, read):
    manifest = (words.folder / "m.yaml").read_text()
    words.write("m.yaml", manifest.replace("word_tasks:upper", "word_tasks:wait"))
    process = words.start("submit", "m.yaml")
    started = words.folder / "calls.txt"
    wait_for(lambda: started.exists() and "w5" in started.read_text(), "the sixth item", 60)
    process.kill()
    process.communicate()
    stopped = words.run("resume", "words_module_4", "--dry-run")
    words.write("go", "")

    resumed = words.run("resume", "words_module_4")

    assert stopped.returncode in (0, 2)
    assert resumed.returncode == 0, resumed.stderr
    done = calls(words)
    assert sorted(set(done)) == [f"w{n}" for n in range(8)]
    assert len(read("v0/collated/01_upper.json")) == 8
    assert read("latest.json") == {"version": "v0"}
