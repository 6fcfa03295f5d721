"""Every example runs as it is, offline."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
OUTPUT = "outputs/stdlib/v0/collated/01_summaries.json"


def test_the_demo_summarises_every_module_of_this_machines_standard_library(project):
    shutil.copytree(
        EXAMPLES / "stdlib",
        project.folder,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("outputs", "__pycache__"),
    )

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
    shutil.copytree(
        EXAMPLES / "problems",
        project.folder,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("outputs", "__pycache__", ".batchq"),
    )
    script = [sys.executable, "pipeline.py"]

    chained = project.run("submit", "manifest.yaml", "--status", "alpha")
    walked = subprocess.run(script, cwd=project.folder, capture_output=True, text=True, timeout=120)
    listed = subprocess.run(
        [sys.executable, "list.py", "problem_generator_module_4"],
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert chained.returncode == 0, chained.stderr
    assert "DEEPSEEK" not in chained.stderr
    final = project.read("outputs/full_pipeline_module_4/v0/collated/03_final.json")
    assert [row["interaction_id"] for row in final] == list(range(1, 15))
    assert {row["verdict"] for row in final} <= {"ship", "mend"}
    assert walked.returncode == 0, walked.stderr
    processed = "outputs/interaction_processor_module_4/latest/collated/01_processed.json"
    assert len(project.read(processed)) == 14
    assert "Notes: Fixed prompt issues for templates 4002 and 4007" in listed.stdout
