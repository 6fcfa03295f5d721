"""The workflow of seed 002 by its Python API: in a script of its own, and inside of pytest."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import batchq
from batchq import ManifestError, Run, RunNotFound, Step, UsageError, run_pipeline, submit
from batchq.runs.life import open_folder

HOME = "outputs/problem_generator_module_4"

PROVIDERS = {
    "sim": {"kind": "simulator", "model": "sim-1", "simulator": {"latency_ms": 5}},
}

PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

TOLD = """
import json
from batchq import Run

runs = (first, second, third)
keys = ("version", "mode", "base_version", "pipeline_status", "notes")
told = {
    "states": [run.state for run in runs],
    "codes": [run.exit_code for run in runs],
    "names": [run.name for run in runs],
    "rows": second.collated(),
    "metadata": {key: second.metadata[key] for key in keys},
    "processed": len(third.collated("processed")),
    "found": Run.load("problem_generator_module_4@v0").summary.ok,
}
open("told.json", "w").write(json.dumps(told))
"""

TASKS = """
    def shout(item):
        if item["word"] == "bad":
            raise ValueError("a bad word")
        return {"text": item["word"].upper()}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a new user, without any settings."""
    for name in [name for name in os.environ if name.startswith("BATCHQ_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def words(folder: Path) -> Path:
    rows = [{"id": f"w{n}", "word": word} for n, word in enumerate(["one", "bad", "three"])]
    (folder / "words.json").write_text(json.dumps(rows))
    (folder / "word_tasks.py").write_text(textwrap.dedent(TASKS))
    return folder


SHOUT = Step(
    input="words.json",
    id_field="id",
    task="word_tasks:shout",
    output_file="shouted.json",
    retry={"max_retries": 0},
)


def test_the_workflow_of_the_documents_runs_and_a_rerun_builds_on_it(
    folder: Path,
) -> None:
    templates = [{"template_id": str(4001 + n), "goal": {"verb": "create"}} for n in range(14)]
    inputs = folder / "inputs/modules/module4"
    inputs.mkdir(parents=True)
    (inputs / "problem_templates.json").write_text(json.dumps(templates))
    (folder / "prompts").mkdir()
    (folder / "prompts/generate_interaction.md").write_text("{goal__verb} {template_id} as JSON.\n")
    (folder / "prompts/process_interactions.md").write_text("Improve: {question}\n")
    schema = {"type": "object", "required": ["question"], "properties": {"question": {}}}
    schema["properties"]["question"] = {"type": "string"}  # type: ignore[index]
    (folder / "schema.json").write_text(json.dumps(schema))
    (folder / "providers.yaml").write_text(json.dumps({"providers": PROVIDERS}))
    document = Path(batchq.__file__).parents[1] / "docs/python.md"
    (folder / "workflow.py").write_text("".join([*PYTHON.findall(document.read_text()), TOLD]))

    done = subprocess.run(
        [sys.executable, "workflow.py"],
        env={**os.environ, "PYTHONPATH": str(Path(batchq.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    told = json.loads((folder / "told.json").read_text())
    rows = told.pop("rows")
    assert told == {
        "states": ["completed"] * 3,
        "codes": [0] * 3,
        "names": [
            "problem_generator_module_4@v0",
            "problem_generator_module_4@v1",
            "interaction_processor_module_4@v0",
        ],
        "metadata": {
            "version": "v1",
            "mode": "rerun",
            "base_version": "v0",
            "pipeline_status": "beta",
            "notes": "Fixed prompt issues for templates 4002 and 4007",
        },
        "processed": 14,
        "found": 14,
    }
    assert [row["interaction_id"] for row in rows] == list(range(1, 15))
    assert [row["source_template_id"] for row in rows] == [str(4001 + n) for n in range(14)]
    assert rows == json.loads((folder / HOME / "latest/collated/01_interactions.json").read_text())
    assert {path.name for path in (folder / HOME / "v1/items").iterdir()} == {"4002", "4007"}
    assert "<Run problem_generator_module_4@v0 completed, 14 ok, 0 failed> []" in done.stdout
    assert "problem_generator_module_4@v1 completed; interactions 2/2" in done.stderr
    assert "interaction_processor" not in done.stderr  # it was not asked to be verbose


def test_failed_items_are_in_the_run_that_comes_back_and_raise_nothing(
    words: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_pipeline([SHOUT], pipeline_name="words", path_letter="a", verbose=False)

    assert (run.name, run.state, run.exit_code) == ("words_path_a@v0", "completed", 3)
    assert run.collated() == run.collated("shouted") == run.collated(1)
    assert [row["text"] for row in run.collated()] == ["ONE", "THREE"]
    assert [(row["item_id"], row["error"]) for row in run.errors()] == [
        ("w1", "ValueError: a bad word")
    ]
    assert Path(run.folder) == words / "outputs/words_path_a/v0"
    assert capfd.readouterr().err == ""
    with pytest.raises(UsageError, match="no step 'shout'; its steps are shouted"):
        run.collated("shout")
    with pytest.raises(RunNotFound, match="w1"):
        run_pipeline([SHOUT], pipeline_name="words", path_letter="a", rerun_items=["w11"])
    assert [path.name for path in (words / "outputs/words_path_a").glob("v*")] == ["v0"]


def test_skip_existing_goes_on_with_a_version_and_runs_what_has_no_output(words: Path) -> None:
    keys = {**SHOUT.keys, "batch_size": 1, "concurrent_batches": 1, "stop_on_error": True}
    stopped = run_pipeline([Step(**keys)], pipeline_name="words")
    tasks = words / "word_tasks.py"
    tasks.write_text(tasks.read_text().replace('== "bad"', '== "one"'))  # whose output is there

    run = run_pipeline([Step(**keys, batch_skip_existing=True)], pipeline_name="words")
    again = run_pipeline([Step(**keys, batch_skip_existing=True)], pipeline_name="words")

    assert (stopped.state, stopped.exit_code) == ("failed", 4)
    assert again.id == run.id  # everything has an output: nothing is run
    assert (run.name, run.state, run.exit_code) == ("words@v0", "completed", 0)
    assert [row["text"] for row in run.collated()] == ["ONE", "BAD", "THREE"]


@pytest.mark.parametrize(
    ("stop", "words"), [(signal.SIGINT, "KeyboardInterrupt: told@v0"), (signal.SIGKILL, "")]
)
def test_a_script_that_was_stopped_goes_on_when_it_is_run_again(
    folder: Path, wait_for: Callable[..., None], stop: signal.Signals, words: str
) -> None:
    (folder / "texts.json").write_text(json.dumps([{"id": str(n)} for n in range(24)]))
    (folder / "script.py").write_text(
        "from batchq import Step, run_pipeline\n"
        "sim = {'kind': 'simulator', 'model': 's', 'limits': {'concurrency': 2},"
        " 'simulator': {'latency_ms': 100}}\n"
        "step = Step(prompt='Tell about {id}.\\nBe short.', input='texts.json', id_field='id',"
        " output_file='told.json', batch_size=4, skip_existing=True)\n"
        "run = run_pipeline([step], pipeline_name='told', providers={'sim': sim})\n"
        "print(run)\n"
    )
    command = [sys.executable, "script.py"]
    env = {**os.environ, "PYTHONPATH": str(Path(batchq.__file__).parents[1])}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: list(folder.glob("outputs/told/v0/items/*")), "the first batch", 60)
        process.send_signal(stop)
        assert process.stderr is not None
        said = process.stderr.read()

    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )

    assert words in said
    assert done.stdout == "<Run told@v0 completed, 24 ok, 0 failed>\n", done.stderr


def test_a_manifest_is_submitted_from_another_thread_than_the_main_one(words: Path) -> None:
    manifest = {
        "name": "${params.title}",
        "params": {"title": "words", "size": 5},
        "steps": [{"name": "shout", "batch_size": "${params.size}", **SHOUT.keys}],
    }
    (words / "m.yaml").write_text(json.dumps(manifest))
    runs: list[Run] = []

    thread = threading.Thread(
        target=lambda: runs.append(submit(words / "m.yaml", {"title": "other", "size": 2}))
    )
    thread.start()
    thread.join(60)

    assert [(run.name, run.summary.ok) for run in runs] == [("other@v0", 2)]


def test_a_run_stops_at_the_budget_and_has_the_concurrency_that_a_script_gives(
    words: Path,
) -> None:
    steps = [Step(input="words.json", prompt="Say {word}.\n", options={"max_tokens": 50})]

    run = run_pipeline(
        steps, pipeline_name="b", providers=PROVIDERS, concurrency=2, max_tokens="60"
    )

    provider = open_folder(run.folder).read_plan().step(1).spec.stages[0].provider
    assert provider
    assert provider.limits.concurrency == 2
    assert run.state == "paused"
    assert "the budget of 60 tokens is used up" in run.reason
    with pytest.raises(UsageError, match="max_cost: expected a number of dollars"):
        run_pipeline(steps, providers=PROVIDERS, max_cost="much")


def test_without_a_name_every_run_is_a_pipeline_of_its_own(words: Path) -> None:
    run = run_pipeline([SHOUT])

    assert run.pipeline.startswith("run_2")
    assert run.version == "v0"
    with pytest.raises(UsageError, match="rerun_items needs a pipeline_name"):
        run_pipeline([SHOUT], rerun_items=["w1"])


def test_a_script_without_a_main_guard_is_not_run_again_by_its_own_workers(folder: Path) -> None:
    (folder / "script.py").write_text(
        "from batchq import Step, run_pipeline\n"
        "def double(item): return item['number'] * 2\n"
        "run = run_pipeline([Step(input={'generate': 2}, task='script:double',"
        " retry={'max_retries': 0})])\n"
        "print(run.errors()[0]['error'])\n"
    )

    done = subprocess.run(
        [sys.executable, "script.py"],
        env={**os.environ, "PYTHONPATH": str(Path(batchq.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert 'put the call under `if __name__ == "__main__":`' in done.stdout, done.stderr
    assert len(list((folder / "outputs").iterdir())) == 1


def test_everything_that_is_wrong_is_told_at_once_by_the_names_that_were_written(
    words: Path,
) -> None:
    wrong = Step(prompt_name="shout.md", batch_id_field="id", batch_size=900)
    providers = {"sim": {"kind": "simulator"}}

    with pytest.raises(ManifestError) as raised:
        run_pipeline([wrong], pipeline_name="w", pipeline_status="fnal", providers=providers)

    told = str(raised.value)
    assert "run_pipeline(): pipeline_status: 'fnal' is no known label; did you mean final?" in told
    assert "run_pipeline(): steps[0].prompt_name: shout.md: no such file" in told
    assert "steps[0].batch_size: at most 500, found 900" in told
    assert "steps[0]: the first step needs an `input`" in told
    assert not (words / "outputs").exists()
