"""The versioning guide (seed 002) from its first command to its last, as a new user walks it."""

from __future__ import annotations

import json
import re
import signal
import textwrap
from typing import Any

import pytest

HOME = "outputs/problem_generator_module_4"
GENERATE = "Write a problem for {template_id}: {goal_decomposition__mastery_verb}, as JSON.\n"
MANIFEST = """
    name: problem_generator
    labels: {module: 4}
    status: alpha
    notes: First run with new template structure
    providers:
      model:
        kind: simulator
        model: small
        prices: {input_per_1m: 1, output_per_1m: 2}
        simulator: {latency_ms: LATENCY}
    steps:
      - name: interactions
        prompt_name: generate_interaction
        input_file: inputs/problem_templates.json
        batch_mode: true
        batch_id_field: template_id
        batch_output_id_field: interaction_id
        output_schema: schema.json
        output_file: interactions.json
"""
PROCESS = """
    name: interaction_processor
    labels: {module: 4}
    providers:
      model: {kind: simulator, model: small, simulator: {latency_ms: 5}}
    steps:
      - name: processed
        prompt_name: process_interactions
        input_file: outputs/problem_generator_module_4/latest/collated/01_interactions.json
        batch_mode: true
        batch_id_field: interaction_id
        output_file: processed.json
"""
ONE_BY_ONE = "    batch_size: 1\n    concurrent_batches: 1\n"
CREATED = r"Created: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "confidence": {"type": "number"}},
    "required": ["question"],
}


@pytest.fixture
def studio(project: Any) -> Any:
    templates = [
        {"template_id": str(4001 + n), "goal_decomposition": {"mastery_verb": "create"}}
        for n in range(14)
    ]
    project.write("inputs/problem_templates.json", templates)
    project.write("prompts/generate_interaction.md", GENERATE)
    project.write("prompts/process_interactions.md", "Improve: {question}\n")
    project.write("schema.json", SCHEMA)
    project.write("m.yaml", textwrap.dedent(MANIFEST).replace("LATENCY", "5"))
    project.write("process.yaml", textwrap.dedent(PROCESS))
    return project


def told(studio: Any, *command: str) -> str:
    """What a command that must go well says."""
    done = studio.run(*command)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def block(text: str, version: str) -> list[str]:
    """The lines that `list` and `compare` have about a version, without times and costs."""
    lines = re.split(rf"(?m)^ *{version}(?: \(latest\))?:?$", text)[1].split("\n\n")[0]
    return [
        re.sub(r"(Created|Duration|Cost): .+", r"\1", line.strip())
        for line in lines.strip().splitlines()
    ]


def test_the_walk_of_the_guide_gives_all_that_it_shows(studio: Any) -> None:
    told(studio, "submit", "m.yaml")
    studio.write("prompts/generate_interaction.md", "Mended. " + GENERATE)
    unmended = studio.run("rerun", "problem_generator_module_4", "4002", "--dry-run")
    note = "Fixed prompt issues for templates 4002 and 4007"
    again = ("4002", "4007", "--manifest", "m.yaml", "--status", "beta", "--note", note)
    told(studio, "rerun", "problem_generator_module_4", *again)
    told(studio, "submit", "process.yaml")

    assert "generate_interaction changed (" in unmended.stderr
    assert "`--manifest m.yaml` takes what is there now" in unmended.stderr
    first, second = (
        studio.read(f"{HOME}/{version}/collated/01_interactions.json") for version in ("v0", "v1")
    )
    assert [row["interaction_id"] for row in second] == list(range(1, 15))
    assert [row["source_template_id"] for row in second] == [str(4001 + n) for n in range(14)]
    assert {
        new["interaction_id"] for old, new in zip(first, second, strict=True) if old != new
    } == {*(2, 7)}
    assert sorted(path.name for path in (studio.folder / HOME / "v1/items").iterdir()) == [
        *("4002", "4007")
    ]
    prompt = (studio.folder / HOME / "v1/prompts/01_prompt_4002.md").read_text()
    assert prompt.startswith("Mended. Write a problem for 4002: create")
    processed = studio.read("outputs/interaction_processor_module_4/v0/collated/01_processed.json")
    assert len(processed) == 14
    _has_the_lists(told(studio, "list", "problem_generator_module_4"), "beta")
    _has_the_lists(told(studio, "list", "problem_generator_module_4", "--all"), "all")
    few = told(studio, "list", "problem_generator_module_4", "--status", "alpha", "rc")
    assert "Showing: alpha, rc" in few
    assert "v1 (latest)" not in few
    every = told(studio, "list")
    assert "PIPELINE: problem_generator_module_4" in every
    assert "PIPELINE: interaction_processor_module_4\nVersions: 0 (hiding 1)" in every
    compared = told(studio, "compare", "problem_generator_module_4", "v0", "v1")
    detail = told(studio, "compare", "problem_generator_module_4", "v0", "v1", "--detail")
    _has_the_comparison(compared)
    assert detail.startswith(compared.rstrip())
    assert re.search(r'4002 +changed\n +confidence: .+\n +question: ".+" -> ".+"', detail)


def _has_the_lists(text: str, showing: str) -> None:
    initial = ["Created", "Status: alpha", "Notes: First run with new template structure"]
    initial += ["Mode: initial", "Duration", "Items: 14", "Cost"]
    rerun = ["Created", "Status: beta", "Notes: Fixed prompt issues for templates 4002 and 4007"]
    rerun += ["Mode: rerun", "Base: v0", "Duration", "Items: 2", "Cost"]
    head = ["=" * 70, "PIPELINE: problem_generator_module_4"]
    assert re.search(CREATED, text)
    assert re.search(r"Duration: \d+\.\ds\n", text)
    assert "v1 (latest)\n" in text
    assert block(text, "v1") == rerun
    if showing == "all":
        assert text.splitlines()[:5] == [*head, "Versions: 2", "Latest: v1", "=" * 70]
        assert block(text, "v0") == initial
        return
    assert text.splitlines()[:7] == [
        *(*head, "Versions: 1 (hiding 1)", "Latest: v1", "Showing: beta, final, rc"),
        *("Tip: Use --all to show all versions, or --status <status> to filter", "=" * 70),
    ]
    assert "\nv0" not in text


def _has_the_comparison(text: str) -> None:
    assert text.startswith("=" * 70 + "\nCOMPARING: problem_generator_module_4\nv0 vs v1\n")
    assert "Version Info:\n" in text
    assert block(text, "v0") == [
        *("Created", "Status: alpha", "Notes: First run with new template structure"),
        *("Mode: initial", "Duration"),
    ]
    assert block(text, "v1") == [
        *("Created", "Status: beta", "Notes: Fixed prompt issues for templates 4002 and 4007"),
        *("Mode: rerun", "Base: v0", "Duration"),
    ]
    assert (
        textwrap.dedent("""
        Items:
          Total in v0: 14
          Total in v1: 2
          In both: 2
          Only in v0: 4001, 4003-4006, 4008-4014
          Only in v1: (none, merged with v0)
        """)
        in text
    )
    assert "Changed: 2  (4002, 4007)" in text


def test_a_run_that_was_killed_at_its_eighth_item_pays_for_the_rest_alone(
    studio: Any, wait_for: Any, simulator: Any
) -> None:
    provider = simulator(latency_ms=150)
    text = textwrap.dedent(MANIFEST).replace("simulator: {latency_ms: LATENCY}", "WHERE")
    text = text.replace("WHERE", f"base_url: {provider.url}").rstrip() + "\n" + ONE_BY_ONE
    studio.write("m.yaml", text)
    submit = studio.start("submit", "m.yaml")
    items = studio.folder / HOME / "v0/items"
    wait_for(lambda: items.exists() and len([*items.iterdir()]) >= 7, "seven items", 60)
    submit.send_signal(signal.SIGKILL)
    submit.communicate()
    studio.write("m.yaml", text + "    batch_skip_existing: true\n")

    listed = told(studio, "list", "problem_generator_module_4", "--all")
    done = studio.run("submit", "m.yaml", "--status", "rc", "--note", "Went on")
    nothing = studio.run("submit", "m.yaml", "--status", "beta", "--json")

    assert "State: " in listed
    assert done.returncode == 0, done.stderr
    assert "going on with problem_generator_module_4@v0, which stopped before its end (" in (
        done.stderr
    )
    assert "(0 outputs" not in done.stderr
    assert provider.stats()["accepted"] in (14, 15)  # the one in flight may be paid again
    rows = studio.read(f"{HOME}/v0/collated/01_interactions.json")
    assert [row["interaction_id"] for row in rows] == list(range(1, 15))
    metadata = studio.read(f"{HOME}/v0/metadata.json")
    assert (metadata["pipeline_status"], metadata["notes"]) == ("rc", "Went on")
    assert json.loads(told(studio, "list", "--status", "rc", "--json"))[0]["notes"] == "Went on"
    assert "nothing to do: problem_generator_module_4@v0 has all of it" in nothing.stderr
    assert "`batchq label problem_generator_module_4 v0`" in nothing.stderr
    assert [path.name for path in (studio.folder / HOME).glob("v*")] == ["v0"]
