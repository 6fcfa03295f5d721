"""An experiment from the command line: its jobs are items, for all that there is for items."""

from __future__ import annotations

import csv
import json
import textwrap

TASKS = """
    from pathlib import Path

    HERE = Path(__file__).parent

    def load(params):
        return params["dataset"].upper()

    def generate(config, params, context):
        context.progress(1, 2)
        if config["leaf"] == 50 and not (HERE / "mended").exists():
            raise ValueError("no leaf is that large")
        (context.output / "words.txt").write_text("tree")
        context.cache.set("last", config["leaf"])
        return {"nodes": 1000 // config["leaf"], "dataset": context.state}
"""

MANIFEST = """
    task: "tuning_tasks:generate"
    setup: "tuning_tasks:load"
    config: {dataset: words}
    jobs:
      - {name: baseline, params: {leaf: 10}}
    matrix:
      axes: {leaf: [20, 50]}
"""


def test_jobs_fail_alone_and_are_retried_rerun_and_compared_by_name(project):
    project.write("tuning.yaml", textwrap.dedent(MANIFEST))
    project.write("tuning_tasks.py", textwrap.dedent(TASKS))

    first = project.run("submit", "tuning.yaml")

    errors = project.read("outputs/tuning/v0/01_errors.json")
    assert first.returncode == 3
    assert [(error["item_id"], error["attempts"]) for error in errors] == [("matrix_leaf50", 1)]
    assert "no leaf is that large" in errors[0]["error"]

    assert (
        "1 task: ValueError: no leaf"
        in (project.folder / "outputs/tuning/v0/report.md").read_text()
    )
    assert "baseline" in (project.folder / "outputs/tuning/v0/report.html").read_text()

    project.write("mended", "")
    retried = project.run("retry", "tuning@v0")
    redone = project.run("rerun", "tuning", "baseline")
    compared = project.run("compare", "tuning", "v0", "v1", "--json")

    assert (retried.returncode, redone.returncode, compared.returncode) == (0, 0, 0)
    output = project.read("outputs/tuning/v1/items/baseline/01_output.json")
    whole = project.read("outputs/tuning/v1/collated/01_jobs.json")
    assert output == {"nodes": 100, "dataset": "WORDS"}
    files = project.folder / "outputs/tuning/v1/items/baseline/01_files"
    assert (files / "words.txt").read_text() == "tree"
    stats = project.read("outputs/tuning/v1/items/baseline/01_output.stats.json")
    assert (stats["metrics"], stats["output_bytes"]) == ({"nodes": 100}, 4)
    assert stats["peak_bytes"] > 2**20
    assert [row["nodes"] for row in whole] == [100, 50, 20]
    assert json.loads(compared.stdout)

    reported = project.run("report", "tuning@v1", "--goal", "min", "--format", "csv")
    refused = project.run("report", "tuning@v1", "--metric", "leafs")

    rows = [line.split(",")[:5] for line in reported.stdout.splitlines()]
    assert rows[1] == ["1", "matrix_leaf50", "ok", "50", "20.0"], reported.stdout
    assert [row[1] for row in rows[2:]] == ["matrix_leaf20", "baseline"]
    assert refused.returncode == 2
    assert "no job has a metric `leafs`; there are nodes" in refused.stderr

    compared = project.run("report", "tuning", "--compare", "v0", "v1", "--format", "csv")
    exported = project.run("export", "tuning@v1", "--inputs")

    assert "baseline,100.0,100.0,0.0" in compared.stdout.splitlines(), compared.stderr
    rows = list(csv.DictReader(exported.stdout.splitlines()))
    assert [(row["item_id"], row["output__nodes"], row["input__leaf"]) for row in rows] == [
        *(("baseline", "100", "10"), ("matrix_leaf20", "50", "20"), ("matrix_leaf50", "20", "50")),
    ]
