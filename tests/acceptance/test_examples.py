"""Every example runs as it is, offline."""

from __future__ import annotations

import shutil
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
