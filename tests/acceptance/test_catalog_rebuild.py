from __future__ import annotations

import shutil
import sqlite3
import textwrap

MANIFEST = """
    name: numbers
    steps:
      - name: twice
        input: {generate: 7}
        task: "my_tasks:twice"
        batch_size: 3
        retry: {max_retries: 0}
"""


def rows(project) -> dict[str, list[tuple]]:
    """What the catalog holds, but for its own row numbers and times of writing."""
    with sqlite3.connect(project.folder / ".batchq/catalog.sqlite") as catalog:
        catalog.row_factory = sqlite3.Row
        found = {}
        for table in ("runs", "batches", "items"):
            names = [
                row["name"]
                for row in catalog.execute(f"PRAGMA table_info({table})")
                if row["name"] not in ("id", "created_at", "updated_at")
            ]
            query = f"SELECT {', '.join(names)} FROM {table} ORDER BY {', '.join(names)}"
            found[table] = [tuple(row) for row in catalog.execute(query)]
    return found


def test_the_catalog_is_made_again_from_the_run_folders(project):
    project.write(
        "my_tasks.py",
        textwrap.dedent("""
            def twice(item):
                if item["number"] == 5:
                    raise ValueError("five")
                return {"n": 2 * item["number"], "confidence": 0.25}
        """),
    )
    project.write("m.yaml", textwrap.dedent(MANIFEST))
    project.run("submit", "m.yaml")
    project.run("rerun", "numbers", "0", "1")
    before = rows(project)
    for path in (project.folder / ".batchq").glob("catalog.sqlite*"):
        path.unlink()

    done = project.run("catalog", "rebuild")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 runs and 4 batches are in the catalog\n"
    assert rows(project) == before
    assert "v1 (latest)" in project.run("list", "numbers", "--all").stdout

    packed = project.run("pack", "numbers", "-o", "run.tar.gz")
    shutil.rmtree(project.folder / "outputs/numbers")
    project.run("gc", "--yes")
    unpacked = project.run("unpack", "run.tar.gz")

    assert packed.stderr == "run.tar.gz: numbers v0, v1\n"
    home = project.folder / "outputs/numbers"
    assert unpacked.stdout == f"{home}/v0\n{home}/v1\n", unpacked.stderr
    assert rows(project) == before
    assert "v1 (latest)" in project.run("list", "numbers", "--all").stdout
