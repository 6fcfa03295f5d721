from __future__ import annotations

import json
import os
import signal
import socket
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from batchq.monitoring.keptletters import send_kept

SECRET = "T0SECRET9"
MANIFEST = """
    name: told
    notify:
      - {url_env: HOOK_URL, token_env: HOOK_TOKEN}
      - {url_env: HOOK_URL, format: slack, on: [failed]}
      - {url_env: NO_SUCH_HOOK, on: [finished]}
    steps:
      - {name: a, input: {generate: 3}, task: "cluster_tasks:note"}
"""


@dataclass
class Receiver:
    """A real HTTP server that fails at first; `taken` are the letters that it answered well."""

    failures: int
    url: str = ""
    tried: list[float] = field(default_factory=list)
    taken: list[tuple[dict[str, str], Any]] = field(default_factory=list)


@pytest.fixture
def receiver(post_server: Any) -> Iterator[Receiver]:
    made = Receiver(failures=2)

    def answer(headers: Message, body: bytes) -> int:
        letter = json.loads(body)
        made.tried.append(time.monotonic())
        if len(made.tried) <= made.failures:
            return 503
        made.taken.append((dict(headers), letter))
        return 204

    with post_server(answer) as url:
        made.url = f"{url}/services/{SECRET}"
        yield made


def test_a_webhook_that_fails_twice_is_told_once_though_the_coordinator_is_killed(
    cluster: Any, receiver: Receiver, redis_client: Any, wait_for: Any
) -> None:
    def coordinator() -> Any:
        env = {"HOOK_URL": receiver.url, "HOOK_TOKEN": "token-1", "BATCHQ_LOG_FORMAT": "json"}
        return cluster.worker("-Q", "batchq.control,batchq.cpu", "-P", "threads", env=env)

    first = coordinator()
    info = cluster.submit(MANIFEST)
    cluster.finish(info)
    wait_for(lambda: len(receiver.tried) == 2, "the webhook was tried twice", 20)
    os.kill(first.pid, signal.SIGKILL)
    stored = str([redis_client.hgetall(key) for key in redis_client.scan_iter("batchq:letters")])
    coordinator()
    wait_for(lambda: receiver.taken, "the letter was taken", 30)
    wait_for(lambda: cluster.services.outbox.waiting(info.run) == 1, "nothing else is sent", 20)

    [(headers, body)] = receiver.taken
    assert headers["Authorization"] == "Bearer token-1"
    assert headers["Idempotency-Key"] == body["id"]
    assert (body["event"], body["name"], body["ok"]) == ("finished", "told@v0", 3)
    assert receiver.tried[1] - receiver.tried[0] > 0.4
    logs = [json.loads(line) for line in cluster.logs().splitlines() if line.startswith("{")]
    [told] = [one for one in logs if "(try 1): the variable NO_SUCH_HOOK is not" in one["message"]]
    assert (told["level"], told["run"]) == ("warning", info.run)
    written = [path.read_bytes() for path in Path(cluster.folder).rglob("*") if path.is_file()]
    assert SECRET not in cluster.logs() + stored
    assert not any(SECRET.encode() in data for data in written)


def test_a_webhook_that_never_answers_holds_the_end_of_a_run_for_seconds_and_the_next_run_tells_it(
    project: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("noop_tasks.py", "def noop(item):\n    return item\n")
    project.write(
        "m.yaml",
        textwrap.dedent("""
            name: told
            notify: {url_env: HOOK_URL}
            steps:
              - {name: a, input: {generate: 2}, task: "noop_tasks:noop"}
            """),
    )
    receiver.failures = 0
    home = project.folder / ".batchq"

    with socket.create_server(("127.0.0.1", 0)) as dead:  # it listens, and takes no connection
        url = f"http://127.0.0.1:{dead.getsockname()[1]}/services/{SECRET}"
        done = project.run("submit", "m.yaml", "--wait", env={"HOOK_URL": url})
    kept = [*(home / "letters").glob("*.json")]
    words = kept[0].read_text()
    monkeypatch.setenv("HOOK_URL", receiver.url)
    send_kept(home)

    assert done.returncode == 0, done.stderr
    assert "1 of the webhooks of told@v0 did not answer within 4 s" in done.stderr
    assert len(kept) == 1
    assert SECRET not in words
    [(headers, body)] = receiver.taken
    assert headers["Idempotency-Key"] == body["id"]
    assert (body["event"], body["name"]) == ("finished", "told@v0")
    assert not [*(home / "letters").glob("*.json")]
