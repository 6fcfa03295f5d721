from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

MANIFEST = """\
version: 1
name: demo
providers:
  sim: {kind: simulator, model: sim-1}
steps:
  - name: describe
    input: items.json
    id_field: id
    prompt: |
      Say something about {topic}.
      Be short.
"""


def with_manifest(project: Any, text: str = MANIFEST, items: int = 3) -> None:
    project.write("m.yaml", text)
    project.write("items.json", [{"id": str(4001 + i), "topic": f"t{i}"} for i in range(items)])


SLOW = ("celery", "fsspec", "jinja2", "jsonschema", "pydantic", "redis", "requests", "rich",
        "ruamel", "sqlalchemy", "tornado")  # fmt: skip


def test_help_waits_for_no_slow_import() -> None:
    code = (
        "import sys, batchq.__main__ as batchq; batchq.main(); "
        f"print({{*{SLOW}}} & {{*sys.modules}})"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True
    )

    *_, imported = done.stdout.splitlines()
    assert "Usage: batchq" in done.stdout
    assert imported == "set()"


def test_an_unknown_command_is_refused_with_the_nearest_name(project: Any) -> None:
    done = project.run("submitt")

    assert done.returncode == 2
    assert "Did you mean 'submit'?" in done.stderr


def test_a_valid_manifest_passes(project: Any) -> None:
    with_manifest(project)

    done = project.run("validate", "m.yaml")

    assert done.returncode == 0, done.stderr


def test_all_problems_of_a_manifest_come_at_once_with_their_places(project: Any) -> None:
    with_manifest(project, MANIFEST.replace("id_field", "idfield") + "    batch_size: many\n")

    done = project.run("validate", "m.yaml")

    assert done.returncode == 2
    assert "m.yaml:8:5" in done.stdout
    assert "m.yaml:12:" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_manifest_that_is_not_there_is_a_bad_command_line(project: Any) -> None:
    done = project.run("plan", "nowhere.yaml")

    assert done.returncode == 2
    assert "nowhere.yaml" in done.stderr


def test_a_plan_says_what_would_run_and_queues_nothing(project: Any) -> None:
    with_manifest(project)

    done = project.run("plan", "m.yaml", "--detailed-exitcode")

    assert done.returncode == 10
    assert "demo  3 items, 1 step, 3 calls" in done.stdout
    assert not (project.folder / "outputs").exists()
    assert not (project.folder / ".batchq").exists()


def test_a_plan_shows_the_prompt_of_one_item(project: Any) -> None:
    with_manifest(project)

    done = project.run("plan", "m.yaml", "--item", "4002")

    assert done.stdout.strip() == "Say something about t1.\nBe short."


def test_a_plan_is_json_for_programs(project: Any) -> None:
    with_manifest(project)

    plan = json.loads(project.run("plan", "m.yaml", "--limit", "2", "--json").stdout)

    assert plan["steps"][0]["items"] == 2


def test_the_schema_is_json(project: Any) -> None:
    schema = json.loads(project.run("schema").stdout)

    assert "steps" in schema["properties"]


def test_a_reader_that_leaves_is_no_error(project: Any) -> None:
    batchq = f"{sys.executable} -m batchq schema"

    done = subprocess.run(f"{batchq} | head -1", shell=True, capture_output=True, text=True)

    assert done.stdout == "{\n"
    assert done.stderr == ""


def test_a_run_that_does_not_exist_is_exit_7(project: Any) -> None:
    done = project.run("status", "nothing@v3")

    assert done.returncode == 7
    assert "no run is named nothing@v3" in done.stderr
