"""Runs the sides of a case in turns on one Redis, and measures what each turn took."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import redis
from sides.driving import URL, Job

from batchq.embedded.binary import find_redis_server

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".bench"
LOOK_EVERY_S = 0.5
PATIENCE_S = 300.0
"""Beyond the deadline of a job: what a side may take to start, or to say that it is late."""
REDIS_CONF = """
port {port}
bind 127.0.0.1
requirepass {word}
dir {folder}
save ""
appendonly yes
appendfsync everysec
logfile redis.log
"""


@dataclass(frozen=True)
class Side:
    """What is measured: `script` in sides/, in an environment of `make bench-setup` or our own."""

    name: str
    script: str
    environment: str = ""
    env: tuple[tuple[str, str], ...] = ()

    @property
    def python(self) -> str:
        if not self.environment:
            return sys.executable
        return str(ENVIRONMENTS / self.environment / "bin" / "python")

    @property
    def is_here(self) -> bool:
        return not self.environment or (ENVIRONMENTS / self.environment / ".made").exists()


@dataclass(frozen=True)
class Turn:
    """One job by one side. `others` is how many cores were busy with anything else meanwhile."""

    side: str
    items: int
    seconds: float
    is_late: bool
    cpu_s: float
    redis_cpu_s: float
    trips: float
    commands: float  # those of scripts, too
    redis_bytes: float
    redis_mb: float
    memory_mb: float
    others: float
    steady_per_s: float = 0.0
    most_open: int = 0

    @property
    def per_s(self) -> float:
        return self.items / self.seconds


class Redis:
    """The broker of all sides: durable as the embedded one, with a database a side."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        word = os.urandom(12).hex()
        conf = folder / "redis.conf"
        conf.write_text(REDIS_CONF.format(port=port, word=word, folder=folder))
        self.port = port
        self.url = f"redis://:{word}@127.0.0.1:{port}"
        self.child = psutil.Popen([str(find_redis_server()), str(conf)])
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        for _ in range(500):
            try:
                self.client.ping()
                break
            except redis.RedisError:
                time.sleep(0.02)

    def load(self) -> tuple[int, int, int]:
        """Round trips, commands and bytes since its counters were reset.

        A round trip is a read from a connection: a pipeline is one, and so is a script.
        """
        stats, net = self.client.info("commandstats"), self.client.info("stats")
        commands = sum(one["calls"] for one in stats.values())
        net_bytes = net["total_net_input_bytes"] + net["total_net_output_bytes"]
        return net["total_reads_processed"], commands, net_bytes

    def stop(self) -> None:
        self.client.close()
        self.child.terminate()
        self.child.wait(30)


class Running:
    """A side whose workers are up."""

    def __init__(self, side: Side, number: int, kind: str, slots: int, url: str, log: Path) -> None:
        self.side = side
        # What a side that is ended leaves behind goes with our own folder.
        own = {URL: f"{url}/{number}", "TMPDIR": str(log.parent)}
        env = {**os.environ, **own, **dict(side.env)}
        if side.environment:
            env.pop("PYTHONPATH", None)
        command = [side.python, str(HERE / "sides" / side.script), kind, str(slots)]
        self.log = log
        with log.open("wb") as errors:
            self.child = psutil.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=env,
                start_new_session=True,  # so that all of it can be ended
            )
        self.versions: dict[str, str] = {}

    def wait_until_ready(self) -> None:
        self.versions = self._answer(PATIENCE_S)["ready"]

    def do(self, job: Job) -> dict[str, Any]:
        self.child.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        self.child.stdin.flush()
        return self._answer(job.deadline_s + PATIENCE_S)

    def _answer(self, patience_s: float) -> dict[str, Any]:
        timer = threading.Timer(patience_s, self.child.kill)
        timer.start()
        try:
            line = self.child.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise SystemExit(f"{self.side.name} ended:\n{self.log.read_text()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def processes(self) -> list[psutil.Process]:
        try:
            return [self.child, *self.child.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> None:
        """Lets it end its workers; what is left of them is ended here."""
        self.child.stdin.close()
        for patience_s in (5, 30):  # one that is at work reads no end of its input
            with suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
                self.child.wait(patience_s)
                break
            self.child.terminate()
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.stdout.close()
        self.child.wait()


class Watch:
    """Looks twice a second at the memory of a side and of Redis."""

    def __init__(self, running: Running, server: Redis) -> None:
        self.memory_mb = self.redis_mb = 0.0
        self._running, self._server = running, server
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            used = self._server.client.info("memory")["used_memory"]
            self.redis_mb = max(self.redis_mb, used / 1e6)
            self.memory_mb = max(self.memory_mb, sum(map(_own, self._running.processes())) / 1e6)
            if self._done.wait(LOOK_EVERY_S):
                return


def _own(process: psutil.Process) -> float:
    """The memory of a process; what forks share is divided among them."""
    try:
        about = process.memory_full_info()
        return float(getattr(about, "pss", about.uss))
    except psutil.Error:
        return 0.0


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            total += sum(process.cpu_times()[:4])  # with those of children that have ended
        except psutil.Error:
            continue
    return total


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


@dataclass(frozen=True)
class Idle:
    """What Redis has to do a second while no side does anything."""

    trips: float = 0.0
    commands: float = 0.0
    net_bytes: float = 0.0

    @classmethod
    def of(cls, server: Redis, seconds: float = 3.0) -> Idle:
        server.client.config_resetstat()
        time.sleep(seconds)
        return cls(*(one / seconds for one in server.load()))

    def beyond(self, load: Sequence[float], seconds: float) -> tuple[float, ...]:
        """What a load was more than this."""
        idle = (self.trips, self.commands, self.net_bytes)
        return tuple(max(0.0, one - less * seconds) for one, less in zip(load, idle, strict=True))


def measure(
    running: Running, job: Job, server: Redis, idle: Idle, slow: SlowServer | None = None
) -> Turn:
    """Lets a side do a job."""
    client = server.client
    own = [psutil.Process(), server.child, *([slow.child] if slow else [])]
    client.config_resetstat()
    if slow:
        slow.seen()
    before = cpu_s(running.processes()), cpu_s([server.child]), cpu_s(own), _busy_s()
    used_before = client.info("memory")["used_memory"] / 1e6
    began = time.perf_counter()
    with Watch(running, server) as watch:
        answer = running.do(job)
    wall_s = time.perf_counter() - began
    after = cpu_s(running.processes()), cpu_s([server.child]), cpu_s(own), _busy_s()
    side_s, redis_s, own_s, busy_s = (b - a for a, b in zip(before, after, strict=True))
    seen = slow.seen() if slow else {}
    trips, commands, net_bytes = idle.beyond(server.load(), wall_s)
    is_late = "late" in answer
    return Turn(
        side=running.side.name,
        items=job.items * job.runs,
        seconds=wall_s if is_late else answer["seconds"],
        is_late=is_late,
        cpu_s=side_s,
        redis_cpu_s=redis_s,
        trips=trips,
        commands=commands,
        redis_bytes=net_bytes,
        redis_mb=max(0.0, watch.redis_mb - used_before),
        memory_mb=watch.memory_mb,
        others=max(0.0, (busy_s - side_s - own_s) / wall_s),
        steady_per_s=seen.get("steady_per_s", 0.0),
        most_open=int(seen.get("most", 0)),
    )


class SlowServer:
    """slow_server.py in a process of its own."""

    def __init__(self, latency_ms: float, address: str = "127.0.0.1") -> None:
        options = ["--latency-ms", str(latency_ms), "--address", address]
        command = [sys.executable, str(HERE / "slow_server.py"), *options]
        self.child = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.child.stdout.readline().strip()

    def seen(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.url}/seen") as answer:
            told: dict[str, float] = json.load(answer)
            return told

    def stop(self) -> None:
        self.child.terminate()
        self.child.wait()
        self.child.stdout.close()


@contextmanager
def started(
    sides: Sequence[Side], kind: str, slots: int, folder: Path
) -> Iterator[tuple[Redis, list[Running]]]:
    """A Redis, and sides with their workers; all end with the block."""
    with ExitStack() as stack:
        server = Redis(folder)
        stack.callback(server.stop)
        running = []
        for number, side in enumerate(sides):
            one = Running(side, number, kind, slots, server.url, folder / f"{number}.log")
            stack.callback(one.stop)
            running.append(one)
        for one in running:
            one.wait_until_ready()
        yield server, running
