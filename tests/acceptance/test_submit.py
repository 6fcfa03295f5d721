from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

WaitFor = Callable[..., None]

TWO_STEPS = """\
version: 1
name: studio
labels: {module: 4}
status: beta
providers:
  sim:
    kind: simulator
    model: sim-1
    simulator: {latency_ms: 20}
config: {provider: sim}
steps:
  - name: generate
    input: templates.json
    id_field: template_id
    output_id_field: problem_id
    prompt: |
      Write a problem about {topic}.
      Answer as JSON.
    output_schema: {type: object, required: [question], properties: {question: {type: string}}}
    output_file: problems.json
  - name: review
    prompt: |
      Review this question: {question}
      Answer as JSON.
    output_schema: {type: object, required: [verdict], properties: {verdict: {enum: [good, bad]}}}
    output_file: reviews.json
"""

ONE_STEP = """\
version: 1
name: {name}
providers:
  sim: {{kind: openai, base_url: "{url}", model: sim-1, limits: {{concurrency: 4}}}}
steps:
  - name: generate
    input: templates.json
    id_field: template_id
    prompt: |
      Write a problem about {{topic}}, number {{template_id}}.
      Be short.
    batch_size: 10
"""


def templates(project: Any, count: int) -> None:
    rows = [{"template_id": str(4001 + i), "topic": f"topic {i}"} for i in range(count)]
    project.write("templates.json", rows)


def one_step(project: Any, url: str, count: int, name: str = "studio") -> None:
    templates(project, count)
    project.write("m.yaml", ONE_STEP.format(name=name, url=url))


def wait_for_items(project: Any, name: str, wait_for: WaitFor) -> None:
    """Until some items of a run have ended."""

    def some() -> bool:
        done = project.run("status", name, "--json")
        return done.returncode == 0 and json.loads(done.stdout)["items"]["ok"] > 0

    wait_for(some, "some items are done", 60)


def test_a_manifest_becomes_a_version_with_its_files(project: Any) -> None:
    templates(project, 14)
    project.write("m.yaml", TWO_STEPS)

    done = project.run("submit", "m.yaml", "--note", "first try")

    assert done.returncode == 0, done.stderr
    assert "studio_module_4@v0  completed  28 ok, 0 failed" in done.stdout
    assert "outputs/studio_module_4/v0/collated/02_reviews.json" in done.stdout
    problems = project.read("outputs/studio_module_4/latest/collated/01_problems.json")
    assert [one["problem_id"] for one in problems] == list(range(1, 15))
    listed = project.run("list", "studio_module_4").stdout
    assert "v0 (latest)" in listed
    assert "Notes: first try" in listed
    assert "Items: 14" in listed
    shown = project.run("show", "studio_module_4", "v0", "4003").stdout
    assert '"question"' in shown
    left = list((project.folder / ".batchq" / "runs").glob("*/redis"))
    assert left == []


def test_drafts_are_hidden_from_the_list_until_asked_for(project: Any, simulator: Any) -> None:
    one_step(project, simulator().url, 2)
    project.run("submit", "m.yaml")

    default = project.run("list").stdout
    every = project.run("list", "--all").stdout
    chosen = project.run("list", "studio", "--status", "draft", "beta", "--json").stdout

    assert "Versions: 0 (hiding 1)" in default
    assert "v0 (latest)" in every
    assert [one["version"] for one in json.loads(chosen)] == ["v0"]


def test_items_that_fail_are_exit_3_and_stand_in_the_errors(project: Any) -> None:
    project.write("templates.json", [{"template_id": "1", "n": 2}, {"template_id": "2", "n": 0}])
    project.write(
        "tasks.py",
        "import tempfile\n"
        "def divide(item, params, context):\n"
        "    tempfile.mkstemp()\n"
        "    return 10 / item['n']\n",
    )
    project.write(
        "m.yaml",
        "version: 1\nname: sums\nsteps:\n  - {name: divide, input: templates.json, "
        "id_field: template_id, task: 'tasks:divide', retry: {max_retries: 0}}\n",
    )
    scratch = project.folder / "scratch"
    scratch.mkdir()

    done = project.run("submit", "m.yaml", env={"TMPDIR": str(scratch)})

    assert done.returncode == 3, done.stderr
    assert "1 ok, 1 failed" in done.stdout
    (error,) = project.read("outputs/sums/v0/01_errors.json")
    assert error["item_id"] == "2"
    assert "ZeroDivisionError" in project.run("show", "sums").stdout
    assert not list(scratch.iterdir()), "temporary files are left behind"


def test_ctrl_c_finishes_what_is_in_flight_and_resume_pays_nothing_twice(
    project: Any, simulator: Any, wait_for: WaitFor
) -> None:
    provider = simulator(latency_ms=300)
    one_step(project, provider.url, 40)
    process = project.start("submit", "m.yaml")
    wait_for(lambda: provider.stats()["accepted"] > 4, "calls are made", 60)

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert "Ctrl-C again stops at once" in err
    assert "next     batchq resume studio@v0" in out
    paid = provider.stats()["accepted"]
    assert 4 < paid < 40
    resumed = project.run("resume", "studio@v0")
    assert resumed.returncode == 0, resumed.stderr
    assert len(project.read("outputs/studio/v0/collated/01_generate.json")) == 40
    assert provider.stats()["accepted"] == 40
    again = project.run("resume", "studio@v0")
    assert again.returncode == 0
    assert "nothing to do" in again.stderr


def test_sigterm_pauses_like_ctrl_c(project: Any, simulator: Any, wait_for: WaitFor) -> None:
    provider = simulator(latency_ms=300)
    one_step(project, provider.url, 40)
    process = project.start("submit", "m.yaml")
    wait_for(lambda: provider.stats()["accepted"] > 0, "calls are made", 60)

    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "paused" in out


def test_a_second_ctrl_c_stops_at_once(project: Any, simulator: Any, wait_for: WaitFor) -> None:
    provider = simulator(latency_ms=60_000)
    one_step(project, provider.url, 8)
    process = project.start("submit", "m.yaml")
    wait_for(lambda: provider.stats()["in_flight"] > 0, "calls are in flight", 60)

    process.send_signal(signal.SIGINT)
    assert process.stderr
    wait_for(lambda: "Ctrl-C again" in process.stderr.readline(), "it pauses")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert process.returncode == 130
    assert time.monotonic() - began < 15


def test_kill_9_leaves_no_process_and_resume_completes(
    project: Any, simulator: Any, wait_for: WaitFor
) -> None:
    provider = simulator(latency_ms=300)
    one_step(project, provider.url, 30)
    soon_dead = {"BATCHQ_LEASE_TTL_S": "3"}
    process = project.start("submit", "m.yaml", env=soon_dead)
    wait_for(lambda: provider.stats()["accepted"] > 4, "calls are made", 60)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 4

    process.kill()
    process.communicate()

    wait_for(lambda: not any(one.is_running() for one in family), "all have ended", 10)
    assert "paused" in project.run("status", "studio@v0").stdout
    resumed = project.run("resume", "studio", env=soon_dead)
    assert resumed.returncode == 0, resumed.stderr
    assert len(project.read("outputs/studio/v0/collated/01_generate.json")) == 30
    assert provider.stats()["accepted"] <= 30 + 4  # those in flight at the kill


def test_two_at_once_do_not_meet(project: Any, simulator: Any) -> None:
    one_step(project, simulator(latency_ms=50).url, 6)
    first = project.start("submit", "m.yaml")
    second = project.start("submit", "m.yaml")

    ended = [process.communicate(timeout=120) for process in (first, second)]

    assert [first.returncode, second.returncode] == [0, 0], ended
    assert {path.name for path in (project.folder / "outputs/studio").glob("v*")} == {"v0", "v1"}


def test_a_worker_that_a_task_kills_comes_back_for_the_other_items(project: Any) -> None:
    project.write("items.json", [{"id": "good"}, {"id": "bad"}, {"id": "fine"}])
    project.write(
        "tasks.py",
        "import os\n\ndef run(item, params, context):\n"
        "    if item['id'] == 'bad':\n        os._exit(9)\n    return item['id']\n",
    )
    project.write(
        "m.yaml",
        "version: 1\nname: deadly\nsteps:\n  - {name: run, input: items.json, id_field: id, "
        "task: 'tasks:run'}\n",
    )

    done = project.run("submit", "m.yaml", timeout=180, env={"BATCHQ_LEASE_TTL_S": "2"})

    assert done.returncode == 3, done.stderr
    assert project.read("outputs/deadly/v0/collated/01_run.json") == ["good", "fine"]


def test_a_terminal_gets_a_live_view(project: Any, simulator: Any) -> None:
    one_step(project, simulator(latency_ms=200).url, 12)
    master, slave = pty.openpty()
    env = {key: value for key, value in os.environ.items() if not key.startswith("BATCHQ_")}
    env.pop("CI", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "batchq", "submit", "m.yaml"],
        cwd=project.folder,
        env={**env, "TERM": "xterm-256color", "COLUMNS": "120"},
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
    )
    os.close(slave)

    shown = read_until_ended(master, process)

    assert process.wait(30) == 0
    assert "━" in shown
    assert "12/12" in shown
    assert "in flight" in shown
    assert process.stdout
    assert "12 ok, 0 failed" in process.stdout.read()


def read_until_ended(master: int, process: subprocess.Popen[str]) -> str:
    shown = b""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.2)[0]:
            if process.poll() is not None:
                break
            continue
        try:
            shown += os.read(master, 65536)
        except OSError:  # Linux says EIO when the other side is closed
            break
    os.close(master)
    return shown.decode(errors="replace")


def test_a_run_in_another_terminal_can_be_watched_and_cancelled(
    project: Any, simulator: Any, wait_for: WaitFor
) -> None:
    one_step(project, simulator(latency_ms=500).url, 60)
    process = project.start("submit", "m.yaml")
    wait_for_items(project, "studio@v0", wait_for)

    cancelled = project.run("cancel", "studio@v0")
    watched = project.run("watch", "studio@v0")
    out, _ = process.communicate(timeout=60)

    assert cancelled.returncode == 0, cancelled.stderr
    assert watched.returncode == 130
    assert process.returncode == 130
    assert "cancelled by a person" in out


def test_an_output_folder_that_cannot_be_made_is_said_before_anything_runs(
    project: Any, simulator: Any
) -> None:
    provider = simulator()
    one_step(project, provider.url, 2)
    project.write("outputs", "a file where the folder should be")

    done = project.run("submit", "m.yaml")

    assert done.returncode == 6
    assert "outputs" in done.stderr
    assert "Traceback" not in done.stderr
    assert provider.stats()["accepted"] == 0


def test_without_a_redis_binary_the_error_says_what_to_do(project: Any, simulator: Any) -> None:
    one_step(project, simulator().url, 2)

    done = project.run("submit", "m.yaml", env={"BATCHQ_REDIS_SERVER": "/no/such/redis"})

    assert done.returncode == 6
    assert "BATCHQ_REDIS_SERVER is '/no/such/redis'" in done.stderr


def test_no_secret_of_the_private_redis_is_written_where_others_read(
    project: Any, simulator: Any, wait_for: WaitFor
) -> None:
    one_step(project, simulator(latency_ms=300).url, 30)
    process = project.start("submit", "m.yaml")
    wait_for_items(project, "studio@v0", wait_for)
    (config,) = (project.folder / ".batchq").glob("runs/*/redis/redis.conf")
    password = next(
        line.split()[1] for line in config.read_text().splitlines() if "requirepass" in line
    )

    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    commands = [" ".join(one.cmdline()) for one in family]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert not any(password in command for command in commands)
    assert password not in out + err
    for path in (project.folder / ".batchq").rglob("*.log"):
        assert password not in path.read_text(errors="replace")


@pytest.mark.parametrize("arguments", [("--detach",), ("--detach", "--local")])
def test_detach_without_a_broker_is_refused(project: Any, arguments: tuple[str, ...]) -> None:
    templates(project, 2)
    project.write("m.yaml", TWO_STEPS)

    done = project.run("submit", "m.yaml", *arguments)

    assert done.returncode == 2
    assert "BATCHQ_BROKER_URL" in done.stderr
