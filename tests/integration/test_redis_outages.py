"""What becomes of a run whose Redis is killed, stopped, full, emptied, or replaced by a replica."""

from __future__ import annotations

import runpy
import signal
import subprocess
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from batchq.embedded.binary import find_redis_server
from batchq.queue import control

ITEMS, SLOTS = 120, 4
TASKS = """
    import time
    from pathlib import Path

    def nap(item):
        with open(Path(__file__).parent / "calls.txt", "a") as file:
            file.write(f"{item['number']}\\n")
        time.sleep(0.1)
        return item["number"]
"""
MANIFEST = f"""
    name: outage
    steps:
      - name: nap
        input: {{generate: {ITEMS}}}
        task: "cluster_tasks:nap"
        batch_size: 10
        concurrent_batches: 2
    """
SERVER = """
port {port}
bind 127.0.0.1
dir "{folder}"
save ""
appendonly {appendonly}
"""
PASSWORD = "word"
SENTINEL = """
port {port}
bind 127.0.0.1
dir "{folder}"
sentinel monitor main 127.0.0.1 {master} 2
sentinel auth-pass main word
sentinel down-after-milliseconds main 1000
sentinel failover-timeout main 4000
"""


class Server:
    """A Redis of its own, on a port of its own."""

    def __init__(
        self,
        folder: Path,
        port: int,
        *options: str,
        config: str = SERVER,
        password: str | None = None,
        **values: Any,
    ) -> None:
        folder.mkdir()
        self.port = port
        self._folder = folder
        conf = folder / "redis.conf"
        conf.write_text(config.format(port=self.port, folder=folder, **values))
        login = ("--requirepass", password, "--masterauth", password) if password else ()
        self._argv = [str(find_redis_server()), str(conf), *options, *login]
        self.client = redis.Redis(
            port=self.port, password=password, decode_responses=True, socket_timeout=2
        )
        self.start()

    def start(self) -> None:
        with (self._folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(self._argv, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGSTOP)
        yield
        self.process.send_signal(signal.SIGCONT)

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def is_full(self) -> bool:
        try:
            self.client.set("one", "more", px=1)
        except redis.exceptions.OutOfMemoryError:
            return True
        return False


@pytest.fixture
def start_server(
    tmp_path: Path, wait_for: Callable[..., None], free_port: Callable[[], int]
) -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:

        def start(name: str, *options: str, **values: Any) -> Server:
            server = Server(tmp_path / name, free_port(), *options, **values)
            stack.callback(server.kill)
            stack.callback(server.client.close)
            wait_for(server.answers, f"{name} answers")
            return server

        yield start


@pytest.fixture
def server(request: pytest.FixtureRequest, start_server: Callable[..., Server]) -> Server:
    return start_server("server", appendonly=getattr(request, "param", "yes"))


@dataclass(frozen=True)
class Watched:
    """A master, its replica, three Sentinels that watch them, and an address that stays."""

    master: Server
    replica: Server
    sentinels: list[Server]
    line: Any


@pytest.fixture
def watched(
    start_server: Callable[..., Server], wait_for: Callable[..., None]
) -> Iterator[Watched]:
    how: dict[str, Any] = {"appendonly": "yes", "password": PASSWORD}
    master = start_server("server", "--repl-diskless-sync-delay", "0", **how)
    replica = start_server("replica", "--replicaof", "127.0.0.1", str(master.port), **how)
    sentinels = [
        start_server(f"sentinel{number}", "--sentinel", config=SENTINEL, master=master.port)
        for number in range(3)
    ]
    wait_for(lambda: all(map(knows_all, sentinels)), "the sentinels know each other", 20)
    wait_for(lambda: is_in_step(replica), "the replica has what the master has", 20)
    path = Path(__file__).parents[1] / "chaos" / "proxy.py"
    line = runpy.run_path(str(path))["Proxy"](master.port)
    yield Watched(master, replica, sentinels, line)
    line.close()


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    if "watched" not in request.fixturenames:
        return f"redis://127.0.0.1:{request.getfixturevalue('server').port}/0"
    sentinels = request.getfixturevalue("watched").sentinels
    places = ",".join(f"127.0.0.1:{one.port}" for one in sentinels)
    return f"sentinel://:{PASSWORD}@{places}/main/0"


def start(cluster: Any) -> Any:
    (cluster.folder / "cluster_tasks.py").write_text(textwrap.dedent(TASKS))
    cluster.coordinator()
    cluster.worker("-P", "threads", "-c", str(SLOTS))
    return cluster.submit(MANIFEST)


def calls(cluster: Any) -> Counter[int]:
    path = cluster.folder / "calls.txt"
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


def wait_for_calls(cluster: Any, number: int) -> None:
    cluster.wait_for(
        lambda: sum(calls(cluster).values()) >= number,
        f"{number} calls, not {len(calls(cluster))}: {cluster.logs()}",
        40,
    )


def test_a_run_goes_on_by_itself_when_redis_was_killed_or_stopped_or_full(
    cluster: Any, server: Server
) -> None:
    info = start(cluster)

    wait_for_calls(cluster, 15)
    server.kill()
    server.start()
    wait_for_calls(cluster, 40)
    with server.stopped():
        pass_time(3 * cluster.services.settings.lease_ttl_s)
    wait_for_calls(cluster, 70)
    server.client.config_set("maxmemory", "1mb")
    cluster.wait_for(server.is_full, "it is full")
    pass_time(2.0)
    server.client.config_set("maxmemory", "0")

    assert list(cluster.finish(info).read_collated(1)) == list(range(1, ITEMS + 1))
    assert sum(calls(cluster).values()) <= ITEMS + 2 * SLOTS


@pytest.mark.parametrize("server", ["no"], indirect=True)
def test_a_run_whose_redis_lost_everything_in_full_flight_goes_on_by_a_resume(
    cluster: Any, server: Server
) -> None:
    info = start(cluster)
    ledger = cluster.services.ledger

    wait_for_calls(cluster, 30)
    server.client.flushall()
    control.resume(info, cluster.services, is_private=False)
    wait_for_calls(cluster, 80)
    server.kill()
    server.start()
    cluster.wait_for(server.answers, "it is back")
    assert ledger.state(info.run) is None
    control.resume(info, cluster.services, is_private=False)

    assert list(cluster.finish(info).read_collated(1)) == list(range(1, ITEMS + 1))
    open_items = 2 * 10  # of two batches, each time
    assert sum(calls(cluster).values()) <= ITEMS + 2 * (open_items + SLOTS)


def test_a_run_goes_on_when_sentinels_promote_a_replica(cluster: Any, watched: Watched) -> None:
    """One worker asks the Sentinels, as the coordinator does; one has an address that stays."""
    url = f"redis://:{PASSWORD}@127.0.0.1:{watched.line.port}/0"
    cluster.worker("-P", "threads", "-c", str(SLOTS), env={"BATCHQ_BROKER_URL": url})
    info = start(cluster)
    wait_for_calls(cluster, 40)

    watched.sentinels[0].kill()
    watched.master.kill()
    cluster.wait_for(lambda: is_promoted(watched.replica), "the replica is the master", 30)
    watched.line.lead_to(watched.replica.port)

    assert list(cluster.finish(info).read_collated(1)) == list(range(1, ITEMS + 1))
    assert sum(calls(cluster).values()) <= ITEMS + 2 * 10 + 4 * SLOTS
    cluster.stop()  # while there is a Redis that they can take their leave of


def knows_all(sentinel: Server) -> bool:
    master: Any = sentinel.client.sentinel_master("main")
    return master["num-other-sentinels"] == 2 and master["num-slaves"] == 1


def is_in_step(replica: Server) -> bool:
    info: Any = replica.client.info("replication")
    return info["master_link_status"] == "up"


def is_promoted(replica: Server) -> bool:
    info: Any = replica.client.info("replication")
    return info["role"] == "master"


def pass_time(seconds: float) -> None:
    """Lets an outage last; there is nothing to wait for, since nothing happens."""
    time.sleep(seconds)
