"""Bad input of every kind: users are told what, where and what to do; nothing is half written."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

WaitFor = Callable[..., None]

STEP = """\
name: studio
steps:
  - name: note
    task: "studio_tasks:echo"
    id_field: id
"""
PROMPT = """\
name: studio
providers:
  sim: {kind: simulator, model: sim-1}
steps:
  - name: ask
    input: items.json
    id_field: id
    provider: sim
"""
TEXT = "      Ask about {topic}.\n      Be short.\n"
ITEMS = [{"id": "a", "topic": "sums"}, {"id": "b", "topic": "fractions"}]
TASKS = """\
import math
import os
import sys

def echo(item):
    return {"seen": item["id"]}

def misbehave(item):
    what = item["do"]
    if what == "raise":
        raise ValueError("no such colour: mauve")
    if what == "exit":
        sys.exit(3)
    if what == "die":
        os._exit(9)
    if what == "set":
        return {1, 2}
    if what == "nan":
        return {"score": math.nan}
    return {"size": len(item.get("text", ""))}
"""


@dataclass(frozen=True)
class Refusal:
    """A submit that is refused before anything runs: what is wrong, and what is said of it."""

    manifest: str | bytes
    words: tuple[str, ...]
    files: dict[str, Any] = field(default_factory=dict)
    code: int = 2


def bad_input(name: str, content: Any, *words: str) -> Refusal:
    return Refusal(f"{STEP}    input: {name}\n", words, {name: content})


REFUSALS = {
    "not yaml": Refusal("name: [studio\nsteps: }\n", ("m.yaml:2:6: not YAML: expected",)),
    "manifest of bytes": Refusal(b"name: \xff\xfe\n", ("m.yaml:1:1: not UTF-8: byte 0xff",)),
    "unknown key": Refusal(
        f"{STEP}    input: items.json\n    batchsize: 3\n",
        ("m.yaml:7:5: ", "unknown key `batchsize` (did you mean `batch_size`?)"),
    ),
    "wrong type": Refusal(
        f"{STEP}    input: items.json\n    batch_size: many\n",
        ("m.yaml:7:5: steps[0].batch_size: expected a whole number", "found the text `many`"),
    ),
    "missing prompt file": Refusal(
        f"{PROMPT}    prompt: prompts/aks.md\n",
        ("m.yaml:9:5: steps[0].prompt: ", "(did you mean prompts/ask.md?)"),
        {"prompts/ask.md": "Ask about {topic}"},
    ),
    "placeholder without a field": Refusal(
        f"{PROMPT}    prompt: |\n      Ask about {{topik}}.\n      Be short.\n",
        ("step ask", "item a: the item has no field `topik`; it has: topic, id"),
    ),
    "wrong option of the simulator": Refusal(
        PROMPT.replace("sim-1}", "sim-1, simulator: {latency: 20}}") + f"    prompt: |\n{TEXT}",
        ("m.yaml:3:", "providers.sim.simulator", "latency", "did you mean latency_ms?"),
    ),
    "missing input": Refusal(
        f"{STEP}    input: itmes.json\n",
        ("m.yaml:6:5: steps[0].input: no such file: itmes.json", "did you mean items.json?"),
    ),
    "empty input file": bad_input("e.json", "", "e.json: the file is empty", "a JSON array"),
    "empty array": bad_input("e.json", "[]", "e.json: ", "empty"),
    "not an array": bad_input(
        "e.json", {"rows": [{"id": 1}]}, "e.json: expected a JSON array", "under `rows`"
    ),
    "invalid utf-8": bad_input(
        "e.jsonl", b'{"id": 1}\n{"id": "\xe9"}\n', "e.jsonl:2: not UTF-8: byte 0xe9 at offset 18"
    ),
    "broken line": bad_input(
        "e.jsonl", '{"id": 1}\n{"id": 2}\n{"id": 3\n{"id": 4}\n', "e.jsonl:3:", "not JSON: "
    ),
    "duplicate ids": bad_input(
        "e.json",
        [{"id": 7}, {"id": 8}, {"id": "7"}],
        "e.json, element 2: the id `7` is there twice",
    ),
    "empty id": bad_input(
        "e.json", [{"id": "a"}, {"id": ""}], "element 1: the id in `id` is empty"
    ),
    "item without the id": bad_input(
        "e.json", [{"idd": 1}], "element 0: no field `id`", "did you mean `idd`?"
    ),
    "unset key variable": Refusal(
        PROMPT.replace("kind: simulator", "kind: openai, api_key_env: STUDIO_TEST_KEY")
        + f"    prompt: |\n{TEXT}",
        ("m.yaml:3:", "STUDIO_TEST_KEY is not set", "export STUDIO_TEST_KEY="),
    ),
    "output folder that nobody can write": Refusal(
        f"config: {{output_dir: /proc/studio}}\n{STEP}    input: items.json\n",
        ("/proc/studio", "check that `output_dir` exists and can be written"),
        code=6,
    ),
    "output folder below a file": Refusal(
        f"config: {{output_dir: items.json/out}}\n{STEP}    input: items.json\n",
        ("items.json/out", "a file or a link stands where a folder is needed"),
        code=6,
    ),
}


@pytest.fixture
def studio(project: Any) -> Any:
    """A folder with a task module and two good items."""
    project.write("studio_tasks.py", TASKS)
    project.write("items.json", ITEMS)
    return project


def said(done: subprocess.CompletedProcess[str]) -> str:
    """All that a command said, which is never a traceback."""
    text = done.stdout + done.stderr
    assert "Traceback" not in text
    return text


def left_behind(project: Any) -> list[str]:
    """Versions that a refused submit made all the same, wherever they are, and their indexes."""
    found = [path for path in project.folder.rglob("v[0-9]*") if path.is_dir()]
    found += project.folder.rglob("plan.json")
    return [str(path.relative_to(project.folder)) for path in found]


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_run_is_refused_with_its_place_and_nothing_is_left(
    studio: Any, case: Refusal
) -> None:
    for name, content in {**case.files, "m.yaml": case.manifest}.items():
        if isinstance(content, bytes):
            (studio.folder / name).write_bytes(content)
        else:
            studio.write(name, content)

    done = studio.run("submit", "m.yaml")

    text = said(done)
    assert done.returncode == case.code, text
    assert [words for words in case.words if words not in text] == [], text
    assert done.stdout == ""
    assert left_behind(studio) == []
    assert not (studio.folder / "outputs").exists()


ODD_IDS = ["../../etc/passwd", "a/b", "CON", "x" * 300, "Zürich 東京 🙂"]


def test_odd_ids_stay_inside_the_run_folder_and_are_found_again(studio: Any) -> None:
    studio.write("items.json", [{"id": one} for one in ODD_IDS])
    studio.write("m.yaml", f"{STEP}    input: items.json\n")
    before = set(studio.folder.parent.rglob("*"))

    done = studio.run("submit", "m.yaml")
    shown = [studio.run("show", "studio", one) for one in ODD_IDS]

    assert done.returncode == 0, said(done)
    collated = studio.read("outputs/studio/v0/collated/01_note.json")
    assert [row["seen"] for row in collated] == ODD_IDS
    assert [one.returncode for one in shown] == [0] * len(ODD_IDS)
    assert all(one in answer.stdout for one, answer in zip(ODD_IDS, shown, strict=True))
    files = sorted((studio.folder / "outputs/studio/v0/items").rglob("*.json"))
    assert [path.parent.parent.name for path in files] == ["items"] * len(ODD_IDS)
    made = set(studio.folder.parent.rglob("*")) - before
    assert not [path for path in made if not path.is_relative_to(studio.folder)]


MISBEHAVING = [
    {"id": "fine", "do": ""},
    {"id": "raises", "do": "raise"},
    {"id": "exits", "do": "exit"},
    {"id": "dies", "do": "die"},
    {"id": "set", "do": "set"},
    {"id": "nan", "do": "nan"},
    {"id": "lost", "do": "import"},
    {"id": "large", "do": "", "text": "x" * 5_000_000},
    {"id": "last", "do": ""},
]
STAGES = """\
name: studio
steps:
  - name: note
    input: items.json
    id_field: id
    retry: {max_retries: 0}
    stages:
      - {name: work, task: "studio_tasks:misbehave"}
      - {name: far, task: "not_installed_anywhere:run", when: "do == 'import'"}
"""


def test_a_task_that_misbehaves_fails_its_item_alone(studio: Any) -> None:
    studio.write("items.json", MISBEHAVING)
    studio.write("m.yaml", STAGES)

    done = studio.run("submit", "m.yaml")

    assert done.returncode == 3, said(done)
    assert "completed  3 ok, 6 failed" in done.stdout
    collated = studio.read("outputs/studio/v0/collated/01_note.json")
    assert [row["size"] for row in collated] == [0, 5_000_000, 0]
    errors = studio.read("outputs/studio/v0/01_errors.json")
    reasons = {error["item_id"]: (error["kind"], error["error"]) for error in errors}
    assert reasons["raises"] == ("task", "ValueError: no such colour: mauve")
    assert reasons["exits"] == ("task", "studio_tasks:misbehave called sys.exit(3)")
    assert reasons["dies"] == ("worker_lost", "its process ended itself with exit status 9")
    assert reasons["set"][0] == reasons["nan"][0] == "not_serializable"
    assert "studio_tasks:misbehave returned something that is not JSON" in reasons["set"][1]
    assert reasons["lost"][0] == "task_not_found"
    assert "cannot import not_installed_anywhere:run on this worker" in reasons["lost"][1]
    assert "install the module there" in reasons["lost"][1]
    assert [error["item_index"] for error in errors] == [1, 2, 3, 4, 5, 6]


def test_a_prompt_of_five_megabytes_is_sent_whole(studio: Any, simulator: Any) -> None:
    provider = simulator()
    text = "word " * 1_000_000
    studio.write("items.json", [{"id": "large", "topic": text}, {"id": "small", "topic": "sums"}])
    where = f'kind: openai, base_url: "{provider.url}"'
    manifest = PROMPT.replace("kind: simulator", where)
    studio.write("m.yaml", f"{manifest}    prompt: |\n{TEXT}")

    done = studio.run("submit", "m.yaml")

    assert done.returncode == 0, said(done)
    sent = (studio.folder / "outputs/studio/v0/prompts/01_prompt_large.md").read_text()
    assert text in sent
    assert provider.stats()["accepted"] == 2


def test_a_task_that_a_worker_elsewhere_does_not_have_fails_with_what_to_do(
    studio: Any, redis_url: str, worker_elsewhere: Callable[..., None]
) -> None:
    studio.write("m.yaml", f"{STEP}    input: items.json\n    retry: {{max_retries: 0}}\n")
    broker = {"BATCHQ_BROKER_URL": redis_url}
    worker_elsewhere(broker, BATCHQ_TASKS='["studio_*"]')

    done = studio.run("submit", "m.yaml", env=broker)

    assert done.returncode == 3, said(done)
    errors = studio.read("outputs/studio/v0/01_errors.json")
    assert {error["kind"] for error in errors} == {"task_not_found"}
    assert "cannot import studio_tasks:echo on this worker" in errors[0]["error"]
    assert "put its folder on PYTHONPATH" in errors[0]["error"]


def test_a_worker_runs_no_module_that_its_own_setting_does_not_allow(
    studio: Any, redis_url: str, worker_elsewhere: Callable[..., None]
) -> None:
    studio.write("m.yaml", f"{STEP}    input: items.json\n    retry: {{max_retries: 0}}\n")
    broker = {"BATCHQ_BROKER_URL": redis_url}
    worker_elsewhere(broker, PYTHONPATH=str(studio.folder))

    done = studio.run("submit", "m.yaml", env=broker)

    assert done.returncode == 3, said(done)
    errors = studio.read("outputs/studio/v0/01_errors.json")
    assert {error["kind"] for error in errors} == {"task_not_allowed"}
    assert "BATCHQ_TASKS='[\"studio_tasks\"]'" in errors[0]["error"]


@pytest.fixture
def worker_elsewhere(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """`worker_elsewhere(broker, NAME=VALUE)` starts a plain Celery worker in an empty folder."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    workers: list[subprocess.Popen[bytes]] = []

    def start(broker: dict[str, str], **env: str) -> None:
        command = [sys.executable, "-m", "celery", "-A", "batchq", "worker", "-c", "1"]
        workers.append(
            subprocess.Popen(
                [*command, "-Q", "batchq.cpu", "-n", "elsewhere@test", "-l", "error"],
                cwd=folder,
                env={**os.environ, **broker, **env},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    yield start

    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    for worker in workers:
        worker.wait(20)


@pytest.mark.parametrize(
    ("url", "words"),
    {
        "redis://:s3cret@127.0.0.1:{port}/0": "Connection refused",
        "redis+socket://:s3cret@{folder}/gone.sock": "No such file or directory",
    }.items(),
    ids=["port", "socket"],
)
def test_a_redis_that_is_gone_is_said_in_seconds_and_nothing_is_left(
    studio: Any, free_port: Any, url: str, words: str
) -> None:
    studio.write("m.yaml", f"{STEP}    input: items.json\n")
    broker = url.format(port=free_port(), folder=studio.folder)
    began = time.monotonic()

    done = studio.run("submit", "m.yaml", env={"BATCHQ_BROKER_URL": broker})

    text = said(done)
    assert done.returncode == 6, text
    assert time.monotonic() - began < 10
    assert words in text
    assert "start that Redis, mend the URL, or unset it to use the embedded stack" in text
    assert "s3cret" not in text
    assert left_behind(studio) == []


@pytest.mark.parametrize("command", [("submit", "m.yaml"), ("status",), ("worker",)])
def test_a_broker_url_that_makes_no_sense_is_a_bad_setting(
    studio: Any, command: tuple[str, ...]
) -> None:
    studio.write("m.yaml", f"{STEP}    input: items.json\n")

    done = studio.run(*command, env={"BATCHQ_BROKER_URL": "localhost:6379"})

    text = said(done)
    assert done.returncode == 2, text
    assert "setting broker_url (BATCHQ_BROKER_URL): it starts with none of redis://" in text
    assert "redis://127.0.0.1:6379/0" in text
    assert left_behind(studio) == []


def test_a_simulator_says_that_its_port_is_taken(project: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        done = project.run("simulator", "--port", str(port))

    assert done.returncode == 2
    assert f"port {port} of 127.0.0.1 is in use: take another one" in said(done)
