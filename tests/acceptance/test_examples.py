"""Every example runs as it is, offline."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"
GROWING = ("--parallel", "--guided", "--concurrency", "12", "--seed", "1")
OUTPUT = "outputs/stdlib/v0/collated/01_summaries.json"


def copy_of(example: str, folder: Path) -> None:
    """Copies an example into an empty folder, without what runs left in it."""
    left = shutil.ignore_patterns(
        "outputs", "__pycache__", ".batchq", "extensions", "history.jsonl"
    )
    shutil.copytree(EXAMPLES / example, folder, dirs_exist_ok=True, ignore=left)


def run_script(project: Any, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a script of an example to its end."""
    argv = [sys.executable, *command]
    return subprocess.run(argv, cwd=project.folder, capture_output=True, text=True, timeout=120)


def lines_of(project: Any, name: str) -> list[Any]:
    """Reads JSON lines."""
    return [json.loads(line) for line in (project.folder / name).read_text().splitlines()]


def start_script(project: Any, *command: str) -> subprocess.Popen[str]:
    """Starts a script of an example; `communicate` waits for its end."""
    argv = [sys.executable, *command]
    return subprocess.Popen(
        argv, cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_the_demo_summarises_every_module_of_this_machines_standard_library(project):
    copy_of("stdlib", project.folder)

    done = project.run("submit", "manifest.yaml", timeout=120)

    assert done.returncode == 0, done.stderr
    rows = project.read(OUTPUT)
    assert OUTPUT in done.stdout
    assert len(rows) > 200
    modules = [row["source_module"] for row in rows]
    assert modules == sorted(modules)
    assert {"abc", "json", "sqlite3", "zipfile"} & set(sys.stdlib_module_names) <= set(modules)
    assert all(0 <= row["confidence"] <= 1 and len(row["summary"]) >= 10 for row in rows)


def test_the_problems_go_through_their_three_steps_and_their_versions(project):
    copy_of("problems", project.folder)

    chained = project.run("submit", "manifest.yaml", "--status", "alpha")
    walked = run_script(project, "pipeline.py")
    listed = run_script(project, "list.py", "problem_generator_module_4")
    unknown = run_script(project, "pipeline.py", "foo")

    assert chained.returncode == 0, chained.stderr
    assert "DEEPSEEK" not in chained.stderr
    final = project.read("outputs/full_pipeline_module_4/v0/collated/03_final.json")
    assert [row["interaction_id"] for row in final] == list(range(1, 15))
    assert {row["verdict"] for row in final} <= {"ship", "mend"}
    assert walked.returncode == 0, walked.stderr
    processed = "outputs/interaction_processor_module_4/latest/collated/01_processed.json"
    assert len(project.read(processed)) == 14
    assert "Notes: Fixed prompt issues for templates 4002 and 4007" in listed.stdout
    assert unknown.returncode == 2
    assert "invalid choice: 'foo' (choose from 'simulator', 'deepseek')" in unknown.stderr


def test_the_consultation_compares_its_mappings_and_goes_on_after_ctrl_c_in_a_wait(
    project, wait_for
):
    copy_of("consultation", project.folder)
    items = project.folder / "outputs/responses/v1/items"
    options = ["--total", "9", "--batch-size", "3"]

    refused = run_script(project, "run_pipeline.py", "--variation", "1.5")
    nothing = run_script(project, "generate_in_batches.py", "--total", "0", "--provider", "foo")
    whole = run_script(project, "run_pipeline.py", "--count", "3", "--variation", "1")
    stopped = subprocess.Popen(
        [sys.executable, "generate_in_batches.py", *options, "--wait-time", "600"],
        cwd=project.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: len(list(items.glob("*"))) == 3, "the first batch is written", 30)
    os.killpg(stopped.pid, signal.SIGINT)  # as a terminal does
    said = stopped.communicate(timeout=30)[0]
    half = project.read("data/synthetic_responses.json")
    gone_on = run_script(project, "generate_in_batches.py", *options, "--wait-time", "0")

    assert refused.returncode == 2
    assert "1.5 is out of bounds (at least 0 and at most 1)" in refused.stderr
    assert nothing.returncode == 2
    assert "params.total: the number `0` is out of bounds (at least 1)" in nothing.stderr
    assert "`foo` is not one of its choices (choices: simulator, deepseek)" in nothing.stderr
    assert whole.returncode == 0, whole.stderr
    assert "# Agreement of two theme mappings\n\n3 responses" in whole.stdout
    assert (project.folder / "summary.md").read_text() in whole.stdout
    first, second = (project.read(f"data/theme_mapping_{number}.json") for number in (1, 2))
    same = [one["themes"] == other["themes"] for one, other in zip(first, second, strict=True)]
    figures = project.read("data/comparison_results.json")
    assert figures["exact_agreement"] == round(sum(same) / 3, 4) < 1
    assert stopped.returncode == 130, said
    assert "paused" in said
    assert [row["response_id"] for row in half] == [1, 2, 3, 4, 5, 6]
    assert gone_on.returncode == 0, gone_on.stderr
    assert "going on with responses@v1" in gone_on.stderr
    responses = project.read("data/synthetic_responses.json")
    assert [row["response_id"] for row in responses] == list(range(1, 10))
    batches = sorted((project.folder / "data/temp").glob("batch_*.json"))
    assert [len(json.loads(batch.read_text())) for batch in batches] == [3, 3, 3]
    assert "batch sent" in (project.folder / "batch_generation.log").read_text()


def test_random_indicators_walk_through_their_stages_into_the_database(project):
    copy_of("indicators", project.folder)

    done = run_script(project, "run.py", "random", "10")
    too_many = run_script(project, "run.py", "all", "400")
    none = run_script(project, "run.py", "random", "0")
    unknown = run_script(project, "run.py", "all", "5", "--provider", "foo")

    assert done.returncode == 0, done.stderr
    assert "10 classified, 0 failed" in done.stdout
    assert re.search(r"Group 1/1  Batch 2/2: indicators 6-10 done \(trace: \w+/1/1\)", done.stdout)
    assert re.search(r"Progress: 10/10 \(100%\) - \d+s elapsed", done.stdout)
    assert (too_many.returncode, none.returncode, unknown.returncode) == (2, 2, 2)
    assert "there are 314 indicators, 0 cannot be taken" in none.stderr
    assert "there are 314 indicators, 400 cannot be taken" in too_many.stderr
    assert "choices: simulator, openai, anthropic, local" in unknown.stderr
    assert unknown.stderr.count("foo") == 1, "what follows from a wrong param is not told"
    with sqlite3.connect(project.folder / "data/classify-workflow-local-dev.db") as database:
        batches = database.execute(
            "SELECT * FROM pipeline_stats ORDER BY batch_start_time DESC LIMIT 10"
        ).fetchall()
        ((classified,),) = database.execute("SELECT COUNT(*) FROM classifications")
        stages = dict(database.execute("SELECT stage, COUNT(*) FROM processing_log GROUP BY stage"))
        reviewed = database.execute(
            "SELECT COUNT(*) FROM processing_log WHERE stage = 'boolean_review' AND status = 'done'"
        ).fetchone()[0]
    database.close()
    rows = project.read("outputs/indicators/v0/collated/01_classifications.json")
    assert [batch[4] for batch in batches] == [5, 5]
    assert classified == len(rows) == 10
    assert set(stages.values()) == {10}
    assert reviewed == sum("boolean_review" in row for row in rows)


def test_the_wildcards_are_tuned_and_their_report_shows_that_the_settings_matter(project):
    copy_of("wildcards", project.folder)

    command = ("wildcards_gen.py", "batch", "experiments.yaml", "--workers", "2")
    done = run_script(project, *command, "-p", "terms=700")

    assert done.returncode == 0, done.stderr
    version = project.folder / "experiments/2026-02-01_tuning/wildcards/v0"
    rows = list(csv.DictReader((version / "summary.csv").open(encoding="utf-8")))
    by_name = {row["job"]: float(row["coherence"]) for row in rows}
    assert len(rows) == 11
    assert by_name["matrix_leaf20_thresh0.3"] > by_name["matrix_leaf100_thresh0.1"] + 0.05
    assert {"outliers", "nodes", "depth", "output_bytes", "duration_s"} <= rows[0].keys()
    assert (version / "items/baseline/01_output.stats.json").exists()
    assert (version / "items/baseline/01_files/wildcards.yaml").stat().st_size > 10_000
    assert "What each axis does to coherence" in (version / "report.html").read_text("utf-8")


def test_the_dialogue_graph_grows_in_two_settings_at_once_and_goes_on_from_a_run(project):
    copy_of("dialogue_graph", project.folder)

    grown = run_script(project, "run_batch.py", "full", "gallia,marmotte:2", "6", *GROWING)
    (run,) = (path.name for path in (project.folder / "outputs").glob("full_*_gallia_v4"))
    parts = [
        start_script(project, "run_batch.py", command, setting, *more, "--source-run", run)
        for command, setting, more in (("extend", "gallia", ["3"]), ("compile", "gallia:3", []))
    ]
    ended = [(part.communicate(timeout=60), part.returncode) for part in parts]

    assert grown.returncode == 0, grown.stdout
    assert re.fullmatch(r"full_\d{8}_\d{6}_gallia_v4", run)
    assert re.search(rf"{run} \| gallia:4: 24 -> \d\d nodes, 33 -> \d\d edges", grown.stdout)
    assert "marmotte:2: 16 -> " in grown.stdout
    assert [code for _, code in ended] == [0, 0], ended
    changes = lines_of(project, "synthetic/gallia_v4/history.jsonl")
    assert [change["step"] for change in changes] == ["compile", "link", "extend", "extend"]
    assert all(change["after"]["nodes"] > change["before"]["nodes"] for change in changes[::2])
    compiled = lines_of(project, "synthetic/gallia_v3/history.jsonl")
    assert [change["step"] for change in compiled] == ["compile"]
    translated = project.read(f"outputs/{run}/v0/collated/02_translation_engine.json")
    assert [len(row["lines"]) for row in translated] == [5] * 6


def test_init_lists_the_examples_and_copies_one_that_runs(project):
    listed = project.run("init")
    copied = project.run("init", "stdlib", "mine")
    again = project.run("init", "stdlib", "mine")
    unknown = project.run("init", "stdlub")
    planned = project.run("validate", "mine/manifest.yaml")

    names = {path.name for path in EXAMPLES.iterdir() if list(path.glob("*.yaml"))}
    assert {line.split()[0] for line in listed.stdout.splitlines()} == names
    assert copied.stdout == "mine\n"
    assert planned.returncode == 0, planned.stdout
    assert not (project.folder / "mine/outputs").exists()
    assert (again.returncode, unknown.returncode) == (2, 2)
    assert "mine is there already" in again.stderr
    assert "did you mean stdlib?" in unknown.stderr
