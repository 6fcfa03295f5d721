"""Hosts with addresses of their own, as network namespaces: cut off, wrong clock, killed, late."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from batchq.embedded.binary import find_redis_server

CUT_S = float(os.environ.get("CUT_S", "7"))
"""`make chaos` cuts for longer."""
ITEMS, SLOTS = 20 + round(20 * CUT_S), 2
TASKS = """
    import os, time
    from pathlib import Path

    def nap(item):
        with open(Path(__file__).parent / "calls.txt", "a") as file:
            file.write(f"{os.environ['HOST']} {item['number']}\\n")
        time.sleep(0.1)
        return item["number"]
"""
CLOCK = """
    import os, time

    real, ahead_s = time.time, float(os.environ.get("AHEAD_S", "0"))
    time.time = lambda: real() + ahead_s
"""


@dataclass(frozen=True)
class Host:
    """A network namespace that is joined to ours by one cable; `gate` is our end's address."""

    name: str
    gate: str

    @property
    def enter(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)

    def plug(self, how: str) -> None:
        ip("link", "set", f"{self.name}-out", how)


def ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True).returncode == 0


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    made = []
    for number in range(2):
        name, net = f"bq{os.getpid()}{number}", f"10.{200 + number}.{os.getpid() % 250}"
        if not ip("netns", "add", name):
            pytest.skip("this user may not make network namespaces; the storm cuts lines without")
        ip("link", "add", f"{name}-out", "type", "veth", "peer", "name", "up0", "netns", name)
        ip("addr", "add", f"{net}.1/30", "dev", f"{name}-out")
        ip("link", "set", f"{name}-out", "up")
        ip("-n", name, "addr", "add", f"{net}.2/30", "dev", "up0")
        ip("-n", name, "link", "set", "up0", "up")
        made.append(Host(name, f"{net}.1"))
    yield made
    for host in made:
        ip("netns", "del", host.name)


@pytest.fixture
def redis_port(hosts: list[Host], tmp_path: Path, wait_for: Callable[..., None]) -> Iterator[int]:
    """A Redis that the hosts reach at their gates, with a password."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    conf = tmp_path / "redis.conf"
    gates = " ".join(host.gate for host in hosts)
    conf.write_text(
        f"port {port}\nbind 127.0.0.1 {gates}\nrequirepass word\nsave ''\ndir {tmp_path}\n"
        "appendonly yes\nlogfile redis.log\n"
    )
    server = subprocess.Popen([str(find_redis_server()), str(conf)])
    client = redis.Redis(port=port, password="word")

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False

    wait_for(answers, "Redis answers")
    yield port
    client.close()
    server.terminate()
    server.wait(10)


@pytest.fixture
def redis_url(redis_port: int) -> str:
    return f"redis://:word@127.0.0.1:{redis_port}/0"


def test_a_run_on_hosts_that_are_cut_off_or_killed_or_late_or_have_a_wrong_clock_completes(
    cluster: Any, hosts: list[Host], redis_port: int
) -> None:
    (cluster.folder / "cluster_tasks.py").write_text(textwrap.dedent(TASKS))
    (cluster.folder / "sitecustomize.py").write_text(textwrap.dedent(CLOCK))

    def worker(host: Host, name: str, ahead_s: float = 0.0) -> subprocess.Popen[bytes]:
        url = f"redis://:word@{host.gate}:{redis_port}/0"
        env = {"BATCHQ_BROKER_URL": url, "HOST": name, "AHEAD_S": str(ahead_s)}
        options = ("-P", "threads", "-c", str(SLOTS))
        return cluster.worker(*options, before=host.enter, env=env)

    def wait_for_calls(name: str, number: int) -> None:
        what = f"{number} calls of {name}, not {calls()}: {cluster.logs()}"
        cluster.wait_for(lambda: calls()[name] >= number, what, 60)

    def calls() -> Counter[str]:
        path = cluster.folder / "calls.txt"
        return Counter(line.split()[0] for line in path.open()) if path.exists() else Counter()

    cut, wrong = hosts
    cluster.coordinator()
    worker(cut, "cut")
    ahead = worker(wrong, "ahead", ahead_s=600.0)
    info = cluster.submit(f"""
        name: hosts
        steps:
          - {{name: nap, input: {{generate: {ITEMS}}}, task: "cluster_tasks:nap", batch_size: 20}}
        """)

    wait_for_calls("cut", 10)
    wait_for_calls("ahead", 10)
    cut.plug("down")
    time.sleep(CUT_S)  # more than three leases
    meanwhile = calls()
    cut.plug("up")
    wait_for_calls("ahead", meanwhile["ahead"] + 1)
    for process in [*psutil.Process(ahead.pid).children(recursive=True), ahead]:
        process.send_signal(signal.SIGKILL)
    worker(wrong, "late", ahead_s=-600.0)

    assert list(cluster.finish(info).read_collated(1)) == list(range(1, ITEMS + 1))
    assert meanwhile["ahead"] > 20, "it went on while the other was cut off"
    assert sum(calls().values()) <= ITEMS + 3 * SLOTS
