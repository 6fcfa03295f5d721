from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchq.ledger import keys
from batchq.services import build_services
from batchq.settings import Settings

WaitFor = Callable[..., None]
PROCFILE = Path(__file__).parents[2] / "Procfile"

MANIFEST = """\
version: 1
name: studio
providers:
  sim: {{kind: openai, base_url: "{url}", model: sim-1}}
steps:
  - name: generate
    input: templates.json
    id_field: template_id
    prompt: |
      Write a problem about {{topic}}.
      Be short.
"""


@pytest.fixture
def broker(redis_url: str) -> dict[str, str]:
    return {"BATCHQ_BROKER_URL": redis_url, "BATCHQ_LEASE_TTL_S": "5"}


def with_manifest(project: Any, url: str, count: int = 6) -> None:
    rows = [{"template_id": str(4001 + i), "topic": f"topic {i}"} for i in range(count)]
    project.write("templates.json", rows)
    project.write("m.yaml", MANIFEST.format(url=url))


def wait_for_workers(env: dict[str, str], wait_for: WaitFor) -> None:
    settings = Settings(broker_url=env["BATCHQ_BROKER_URL"])
    ledger = build_services(settings, patience_s=5).ledger

    def up() -> bool:
        alive = [about for about in ledger.alive().values() if about["role"] != "process"]
        queues = {queue for about in alive for queue in about["queues"].split(",")}
        return {"batchq.control", "batchq.llm"} <= queues

    wait_for(up, "coordinator and workers are alive", 60)


def stop(process: Any) -> None:
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def test_a_broker_that_is_not_there_is_said_in_seconds_and_nothing_is_written(
    project: Any, simulator: Any
) -> None:
    with_manifest(project, simulator().url)
    began = time.monotonic()

    done = project.run("submit", "m.yaml", env={"BATCHQ_BROKER_URL": f"redis://:secret@{closed()}"})

    assert done.returncode == 6
    assert time.monotonic() - began < 15
    assert "BATCHQ_BROKER_URL is redis://127.0.0.1" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project.folder / "outputs").exists()


def closed() -> str:
    """An address at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        host, port = found.getsockname()
    return f"{host}:{port}"


def test_up_is_a_whole_stack_with_flower_that_others_submit_to(
    project: Any, simulator: Any, wait_for: WaitFor
) -> None:
    with_manifest(project, simulator().url)
    nightly = (project.folder / "m.yaml").read_text() + 'schedule: {cron: "0 2 * * *"}\n'
    project.write("nightly.yaml", nightly)
    cluster = project.start("up", "--flower-port", closed().rpartition(":")[2])
    told = "".join(iter(cluster.stderr.readline, "Ctrl-C ends them all.\n"))
    flower = re.search(r"http://127.0.0.1:\d+", told)[0]
    broker = {"BATCHQ_BROKER_URL": Path(re.search(r"cat (.*)\)", told)[1]).read_text()}
    with urllib.request.urlopen(f"{flower}/healthcheck", timeout=5) as answer:
        assert answer.read() == b"OK"
    metrics = answers(f"{flower}/metrics")
    runs = answers(f"{flower}/runs")
    again = project.run("up", "--flower-port", "0")

    followed = project.run("submit", "m.yaml", env=broker)
    detached = project.run("submit", "m.yaml", "--detach", env=broker)
    watched = project.run("watch", detached.stdout.strip(), env=broker)
    applied = project.run("schedule", "apply", "nightly.yaml", env=broker)
    come = build_services(Settings(broker_url=broker["BATCHQ_BROKER_URL"])).redis
    come.zadd(keys.SCHEDULED, {"studio": time.time()})

    def is_submitted() -> bool:
        return "studio@v2" in project.run("schedule", "list", env=broker).stdout

    wait_for(is_submitted, "it is submitted by itself", 60)
    by_itself = project.run("watch", "studio@v2", env=broker)
    project.run("schedule", "remove", "studio", env=broker)
    none = project.run("schedule", "list", env=broker)
    stop(cluster)

    assert "studio is submitted at 0 2 * * * (UTC)" in applied.stderr
    assert len(applied.stdout.splitlines()) == 3
    assert "studio@v2  completed  6 ok" in by_itself.stdout, by_itself.stderr
    assert "nothing is scheduled" in none.stderr
    assert followed.returncode == 0, followed.stderr
    assert detached.stdout == "studio@v1\n"
    assert watched.returncode == 0, watched.stderr
    assert "studio@v1  completed  6 ok, 0 failed" in watched.stdout
    assert cluster.returncode == 0
    assert b"batchq_redis_up 1.0" in metrics
    assert b"flower_" in metrics
    assert b"<html" in runs
    assert again.returncode == 6
    assert "`batchq up` runs already in" in again.stderr
    password = broker["BATCHQ_BROKER_URL"].split(":")[2].split("@")[0]
    assert password not in told
    assert not list((project.folder / ".batchq").rglob("broker"))


def test_ctrl_c_on_a_broker_only_ends_the_looking(
    project: Any, simulator: Any, broker: dict[str, str], wait_for: WaitFor
) -> None:
    provider = simulator(latency_ms=400)
    with_manifest(project, provider.url, 60)
    cluster = project.start("up", "-c", "4", "--flower-port", "0", env=broker)
    wait_for_workers(broker, wait_for)
    process = project.start("submit", "m.yaml", env=broker)
    wait_for(lambda: provider.stats()["accepted"] > 0, "calls are made", 60)

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    paused = project.run("pause", "studio", env=broker)
    watched = project.run("watch", "studio@v0", env=broker)
    resumed = project.run("resume", "studio@v0", env=broker)
    stop(cluster)

    assert process.returncode == 130
    assert "studio@v0 goes on. Follow it with `batchq watch studio@v0`" in err
    assert paused.returncode == 0, paused.stderr
    assert watched.returncode == 5
    assert resumed.returncode == 0, resumed.stderr
    assert provider.stats()["accepted"] == 60


def test_a_run_can_be_watched_from_a_folder_without_its_catalog(
    project: Any, simulator: Any, broker: dict[str, str], wait_for: WaitFor, tmp_path: Any
) -> None:
    with_manifest(project, simulator().url)
    queued = project.run("submit", "m.yaml", "--detach", "--json", env=broker)
    run = json.loads(queued.stdout)["run"]
    elsewhere = {**broker, "BATCHQ_HOME": str(tmp_path / "elsewhere")}

    waiting = project.run("status", "studio@v0", "--json", env=elsewhere)
    timed_out = project.run("watch", run, "--timeout", "0.5", env=elsewhere)

    assert json.loads(waiting.stdout)["run"] == run
    assert timed_out.returncode == 124


def test_a_run_that_nobody_works_on_says_what_to_start(
    project: Any, simulator: Any, broker: dict[str, str]
) -> None:
    with_manifest(project, simulator().url)

    done = project.run("submit", "m.yaml", "--timeout", "6", env=broker)

    assert done.returncode == 124
    assert "no coordinator is alive on this broker: this process has one until" in done.stderr


def test_doctor_warns_of_a_redis_that_forgets(
    project: Any, broker: dict[str, str], redis_client: Any
) -> None:
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    redis_client.config_set("appendonly", "no")
    stranger = {"role": "process", "host": "far", "signs": "01234567"}
    redis_client.set("batchq:alive:far", json.dumps(stranger), ex=60)
    try:
        told = project.run("doctor", env=broker)
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
        redis_client.config_set("appendonly", "yes")

    assert told.returncode == 6
    assert "FAIL  eviction: allkeys-lru\n      -> set maxmemory-policy noeviction" in told.stdout
    assert "FAIL  append-only file: off\n      -> set appendonly yes" in told.stdout
    assert "FAIL  signed messages: another key on far (process)\n      -> set the s" in told.stdout


def test_doctor_names_what_is_missing_and_never_a_key(project: Any, broker: dict[str, str]) -> None:
    project.write("templates.json", [{"template_id": "1", "topic": "sums"}])
    text = MANIFEST.format(url="http://127.0.0.1:9").replace(
        "model: sim-1", "model: sim-1, api_key_env: STUDIO_KEY"
    )
    project.write("m.yaml", text)

    without = project.run("doctor", "m.yaml", env=broker)
    with_key = project.run("doctor", "m.yaml", env={**broker, "STUDIO_KEY": "sk-very-secret"})

    assert without.returncode == 6
    assert "FAIL  coordinator: none is alive" in without.stdout
    assert "FAIL  key of sim: the variable STUDIO_KEY is not set" in without.stdout
    assert "ok    eviction: noeviction" in without.stdout
    assert re.search("ok    signed messages: key [0-9a-f]{8}, made of the broker's", without.stdout)
    assert "ok    key of sim: STUDIO_KEY is set" in with_key.stdout
    assert "sk-very-secret" not in with_key.stdout + with_key.stderr


def test_doctor_without_a_broker_looks_at_what_the_embedded_stack_needs(project: Any) -> None:
    done = project.run("doctor")

    assert done.returncode == 0, done.stdout
    assert "ok    embedded Redis" in done.stdout


def test_workers_need_a_broker(project: Any) -> None:
    for command in ("worker", "coordinator"):
        done = project.run(command)

        assert done.returncode == 2
        assert "set BATCHQ_BROKER_URL" in done.stderr


def test_the_procfile_runs_a_coordinator_workers_and_flower(
    project: Any, simulator: Any, broker: dict[str, str], wait_for: WaitFor
) -> None:
    with_manifest(project, simulator().url)
    ports = [closed().rpartition(":")[2] for _ in range(2)]
    folder = Path(sys.executable).parent
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BATCHQ_")},
        **broker,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "FLOWER_PORT": ports[0],
        "METRICS_PORT": ports[1],
    }
    honcho = subprocess.Popen(
        [folder / "honcho", "start", "-f", PROCFILE, "-d", project.folder], env=env
    )
    try:
        wait_for_workers(broker, wait_for)

        done = project.run("submit", "m.yaml", env=broker)
        pages = [f"http://127.0.0.1:{ports[0]}/healthcheck", f"http://127.0.0.1:{ports[1]}/"]
        wait_for(lambda: answers(pages[0]), "Flower answers", 30)
        ended = b'batchq_items_ended_total{kind="",state="ok"} 6.0'
        wait_for(lambda: ended in answers(pages[1]), "the items are counted", 30)
    finally:
        honcho.send_signal(signal.SIGINT)
        honcho.wait(30)

    assert done.returncode == 0, done.stderr


def answers(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return b""


def test_the_simulator_says_when_its_port_is_taken(project: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        done = project.run("simulator", "--port", str(taken.getsockname()[1]))

    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_a_broker_without_workers_is_told_and_the_run_can_still_be_worked_on(
    project: Any, simulator: Any, broker: dict[str, str], wait_for: WaitFor
) -> None:
    with_manifest(project, simulator().url)
    process = project.start("submit", "m.yaml", env=broker)
    said: list[str] = []

    def is_told() -> bool:
        said.append(process.stderr.readline())
        return "No worker is alive on this broker" in said[-1]

    wait_for(is_told, "the command says that no worker is alive", 60)
    worker = project.start("worker", "--queues", "llm", env=broker)
    out, err = process.communicate(timeout=60)
    stop(worker)

    assert "no coordinator is alive on this broker: this process has one" in "".join(said)
    assert process.returncode == 0, err
    assert "6 ok, 0 failed" in out
