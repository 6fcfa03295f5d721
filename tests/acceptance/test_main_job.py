"""The main job as its users do it: a manifest, `batchq submit`, files to open."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

TEMPLATES = [
    {
        "template_id": str(4000 + number),
        "problem_type": f"Student clicks tick mark {number}",
        "goal_decomposition": {
            "mastery_verb": "create",
            "mastery_tier": ["baseline", "support"],
        },
        "parameter_coverage": {"fractions": ["1/2", "1/3", "1/4"]},
    }
    for number in range(1, 15)
]

SCHEMA = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "minLength": 5},
        "workspace": {"type": "object", "properties": {"ticks": {"type": "integer"}}},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": ["question", "confidence"],
    "additionalProperties": False,
}

PROMPT = """Write a problem for {template_id}: {problem_type}.
Verb: {goal_decomposition__mastery_verb}, tiers: {goal_decomposition__mastery_tier},
fractions: {parameter_coverage__fractions}. Answer like {"question": "...", "confidence": 0.5}.
"""

MANIFEST = """
name: problem_generator
labels: {module: 4}
status: alpha
notes: First run with the new template structure
providers:
  model:
    kind: %(kind)s
    %(where)s
    model: small
    prices: {input_per_1m: 1, output_per_1m: 2}
    limits: {concurrency: 8}
steps:
  - name: interactions
    prompt_name: prompts/generate.md
    input_file: inputs/templates.json
    batch_mode: true
    batch_id_field: template_id
    batch_output_id_field: interaction_id
    provider: model
    output_schema: schemas/problem.json
    output_file: interactions.json
    batch_size: 5
    retry: {max_retries: 5, base: 50ms, max_delay: 200ms}
  - name: format
    prompt: prompts/format.md
    id_field: interaction_id
    provider: model
    output_file: formatted.json
    batch_size: 5
    retry: {max_retries: 5, base: 50ms, max_delay: 200ms}
"""
HOME = "outputs/problem_generator_module_4"


@pytest.fixture
def problems(project):
    """The project of seed 002: 14 templates, two chained steps."""
    project.write("inputs/templates.json", TEMPLATES)
    project.write("prompts/generate.md", PROMPT)
    project.write("prompts/format.md", "Format problem {interaction_id}: {question}")
    project.write("schemas/problem.json", SCHEMA)
    project.write("m.yaml", MANIFEST % {"kind": "simulator", "where": "cache: false"})
    return project


def test_fourteen_items_in_two_chained_steps_make_version_zero(problems):
    done = problems.run("submit", "m.yaml")

    assert done.returncode == 0, done.stderr
    outputs = problems.read(f"{HOME}/v0/collated/01_interactions.json")
    assert [row["interaction_id"] for row in outputs] == list(range(1, 15))
    assert [row["source_template_id"] for row in outputs] == [
        template["template_id"] for template in TEMPLATES
    ]
    assert problems.read(f"{HOME}/v0/items/4001/01_output.json") == outputs[0]
    prompt = (problems.folder / HOME / "v0/prompts/01_prompt_4001.md").read_text()
    assert 'tiers: ["baseline", "support"]' in prompt
    assert '{"question": "...", "confidence": 0.5}' in prompt
    assert len(problems.read(f"{HOME}/latest/collated/02_formatted.json")) == 14
    assert (problems.folder / HOME / "latest").readlink().name == "v0"


def test_metadata_has_every_field_of_the_guide_and_totals(problems):
    problems.run("submit", "m.yaml")

    found = problems.read(f"{HOME}/v0/metadata.json")
    expected = {
        "version": "v0",
        "pipeline_name": "problem_generator",
        "mode": "initial",
        "base_version": None,
        "module_number": 4,
        "path_letter": None,
        "pipeline_status": "alpha",
        "notes": "First run with the new template structure",
        "status": "completed",
        "full_pipeline_name": "problem_generator_module_4",
    }
    assert {key: found[key] for key in expected} == expected
    assert found["duration_seconds"] > 0
    assert found["totals"]["ok"] == 28
    assert found["totals"]["calls"] == 28
    assert found["totals"]["cost_usd"] > 0
    assert {"timestamp", "logs", "stats"} <= found.keys()


def test_the_next_submit_makes_the_next_version(problems):
    problems.run("submit", "m.yaml", "--limit", "2")
    done = problems.run("submit", "m.yaml", "--only", "4003,4007", "--note", "again")

    assert done.returncode == 0, done.stderr
    assert (problems.folder / HOME / "latest").readlink().name == "v1"
    found = problems.read(f"{HOME}/v1/collated/01_interactions.json")
    assert [row["source_template_id"] for row in found] == ["4003", "4007"]
    assert problems.read(f"{HOME}/v1/metadata.json")["notes"] == "again"


def test_the_queries_of_the_indicator_guide_work_on_the_catalog(problems):
    problems.run("submit", "m.yaml")

    with sqlite3.connect(problems.folder / ".batchq/catalog.sqlite") as catalog:
        rows = catalog.execute(
            "SELECT * FROM pipeline_stats ORDER BY batch_start_time DESC LIMIT 10;"
        ).fetchall()
        (confidence,) = catalog.execute(
            "SELECT avg(avg_confidence) FROM pipeline_stats WHERE avg_confidence IS NOT NULL"
        ).fetchone()
    assert len(rows) == 6
    assert 0 < confidence < 1


def test_under_faults_every_item_is_ok_or_stands_in_errors_with_its_reason(problems, simulator):
    provider = simulator(server_error_rate=0.10, garbage_rate=0.05, drop_rate=0.02, latency_ms=5)
    many = [dict(TEMPLATES[0], template_id=str(number)) for number in range(200)]
    problems.write("inputs/templates.json", many)
    where = f"base_url: {provider.url}"
    problems.write("m.yaml", MANIFEST % {"kind": "simulator", "where": where})

    done = problems.run("submit", "m.yaml", timeout=150)

    assert done.returncode in (0, 3), done.stderr
    ok = problems.read(f"{HOME}/v0/collated/01_interactions.json")
    path = problems.folder / HOME / "v0/01_errors.json"
    errors = json.loads(path.read_text()) if path.exists() else []
    ids = [row["source_template_id"] for row in ok] + [row["item_id"] for row in errors]
    assert sorted(ids, key=int) == [str(number) for number in range(200)]
    assert all(row["error"] and row["kind"] for row in errors)
    assert provider.stats()["statuses"]["500"] > 0
    assert problems.read(f"{HOME}/v0/metadata.json")["totals"]["retries"] > 0


def test_a_provider_that_is_down_pauses_the_run_and_says_so(problems, simulator):
    provider = simulator()
    provider.stop()
    where = f"base_url: {provider.url}"
    text = MANIFEST % {"kind": "simulator", "where": where}
    problems.write("m.yaml", text.replace("max_retries: 5", "max_retries: 1"))

    done = problems.run("submit", "m.yaml", env={"BATCHQ_OUTAGE_S": "3"})

    assert done.returncode == 5, done.stderr
    assert "step interactions: nobody has had an answer for " in done.stdout
    assert "batchq resume problem_generator_module_4@v0" in done.stdout


def test_a_key_that_is_refused_pauses_the_run_with_one_message(problems, simulator, monkeypatch):
    provider = simulator(api_keys=["right"])
    where = f"base_url: {provider.url}\n    api_key_env: MODEL_KEY"
    problems.write("m.yaml", MANIFEST % {"kind": "openai", "where": where})

    done = problems.run("submit", "m.yaml", env={"MODEL_KEY": "wrong-secret-key"})

    assert done.returncode == 5, done.stderr
    assert "401" in done.stdout
    assert "wrong-secret-key" not in done.stderr + done.stdout
    grep = subprocess.run(
        ["grep", "-rl", "wrong-secret-key", str(problems.folder)], capture_output=True, check=False
    )
    assert grep.stdout == b""

    again = problems.run("resume", "problem_generator_module_4", env={"MODEL_KEY": "right"})

    assert again.returncode == 0, again.stderr
    assert len(problems.read(f"{HOME}/v0/collated/02_formatted.json")) == 14


def test_a_key_variable_that_is_not_set_is_an_error_at_submit(problems):
    text = MANIFEST % {"kind": "openai", "where": "api_key_env: NO_SUCH_VARIABLE_HERE"}
    problems.write("m.yaml", text)

    done = problems.run("submit", "m.yaml")

    assert done.returncode == 2
    assert "NO_SUCH_VARIABLE_HERE" in done.stderr
    assert not (problems.folder / "outputs").exists()


def test_the_same_manifest_runs_on_a_broker_with_workers_in_other_folders(
    problems, simulator, redis_url, tmp_path, wait_for
):
    provider = simulator(latency_ms=20)
    where = f"base_url: {provider.url}"
    problems.write("m.yaml", MANIFEST % {"kind": "simulator", "where": where})
    env = {"BATCHQ_BROKER_URL": redis_url}
    workers = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        command = [sys.executable, "-m", "celery", "-A", "batchq", "worker", "-c", "2"]
        workers.append(
            subprocess.Popen(
                [*command, "-n", f"{name}@test", "-l", "error"],
                cwd=folder,
                env={**os.environ, **env},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    try:
        done = problems.run("submit", "m.yaml", env=env)
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.wait(20)

    assert done.returncode == 0, done.stderr
    assert len(problems.read(f"{HOME}/v0/collated/02_formatted.json")) == 14
    assert list((tmp_path / "one").iterdir()) == []
