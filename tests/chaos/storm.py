"""Runs thousands of items through a storm, and looks whether each of them came through.

    storm.py [--seed N] [--seconds 300] [--items 10000]

One coordinator and three workers, each with a line of its own to a Redis with an append-only file,
call a simulated provider of whose calls one in six fails, and run tasks that misbehave. Meanwhile
processes are killed, stopped for a while, ended and replaced, Redis is killed, restarted and
stopped, lines are cut, and messages of every wrong kind are put into the queues. When the storm is
over nothing is done but to wait for the run.

Ends with 1 if an item is missing or there twice, more was paid twice than was in the hands of those
that were hit, or a key, a process or a file is left behind. The seed decides what happens when.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nonsense
import psutil
import redis
from proxy import Proxy

from batchq.broker.signing import signer_of
from batchq.embedded.binary import find_redis_server
from batchq.errors import QueueError
from batchq.manifest.loader import load_manifest
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import make_plan
from batchq.ports import RunInfo
from batchq.progress import RunState
from batchq.queue import control
from batchq.runs.life import create_run, open_folder
from batchq.services import build_services
from batchq.settings import Settings

WORKERS = 3
SLOTS = 10
HURTFUL = 60
LEASE_S = 3.0
STILL_S = 120.0
"""A run of which nothing more ends for so long is stuck, however slow the machine is."""
NAMES_OF_THINGS = ("_kombu.binding", "batchq:limits")
"""Keys that stay: which queues and which providers there are, a few bytes each."""
MARK = "BATCHQ_TEST_STORM"

MANIFEST = """
name: storm
providers:
  sim: {kind: openai, base_url: "%(url)s", model: any}
steps:
  - name: ask
    input: items.json
    id_field: id
    prompt: |
      Say something about number {n}. {text}
    output_schema: answer.json
    options: {max_tokens: 500}
    retry: {max_retries: 6, base: 100ms}
    batch_size: %(batch_size)d
    concurrent_batches: 4
"""
SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
REDIS = """
port {port}
bind 127.0.0.1
requirepass {password}
dir "{folder}"
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
"""


class Storm:
    """A cluster, and what happens to it."""

    def __init__(self, folder: Path, seed: int, seconds: float, items: int) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.seed, self.seconds, self.items = seed, seconds, items
        self.mark = secrets.token_hex(8)
        self.began = time.monotonic()
        self.exposed = 0
        self.hits: Counter[str] = Counter()
        self.redis_port = free_port()
        self.password = secrets.token_hex(8)
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self._stack = ExitStack()
        self._children: dict[str, subprocess.Popen[Any]] = {}
        self._number = 0
        self.proxies: list[Proxy] = []

    def begin(self) -> RunInfo:
        """Starts everything, and the run."""
        (self.folder / "storm_tasks.py").write_text(textwrap.dedent(nonsense.TASKS))
        conf = self.folder / "redis.conf"
        values = {"port": self.redis_port, "password": self.password, "folder": self.folder}
        conf.write_text(REDIS.format(**values))
        self.start_redis()
        options = {
            "seed": self.seed,
            "latency_ms": max(50.0, 400.0 * WORKERS * SLOTS * self.seconds / self.items),
            "server_error_rate": 0.04,
            "drop_rate": 0.03,
            "overloaded_rate": 0.03,
            "garbage_rate": 0.05,
            "truncation_rate": 0.01,
            "refusal_rate": 0.01,
        }
        self._children["simulator"] = simulator = subprocess.Popen(
            [sys.executable, "-m", "batchq.simulator", "--options", json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
            env=self.env(),
        )
        assert simulator.stdout is not None
        self.simulator_url = simulator.stdout.readline().strip()
        self.proxies = [Proxy(self.redis_port) for _ in range(WORKERS)]
        self.start_coordinator()
        for number in range(WORKERS):
            self.start_worker(number)
        self.settings = Settings(
            broker_url=self.url(self.redis_port),
            home=self.folder / ".batchq",
            lease_ttl_s=LEASE_S,
        )
        self.services = build_services(self.settings, patience_s=20)
        self.hurtful = nonsense.hurtful_items(HURTFUL)
        files = {
            "items.json": nonsense.hostile_items(self.items),
            "hurt.json": self.hurtful,
            "answer.json": SCHEMA,
        }
        for name, content in files.items():
            (self.folder / name).write_text(json.dumps(content))
        manifest = self.folder / "storm.yaml"
        values = {"url": self.simulator_url, "batch_size": max(5, self.items // 100)}
        manifest.write_text(MANIFEST % values + nonsense.STEP)
        loaded = load_manifest(manifest)
        plan = make_plan(loaded)
        info = create_run(plan, manifest_lock(loaded, plan), self.services, now=time.time())
        control.start(info, self.services)
        return info

    def url(self, port: int) -> str:
        return f"redis://:{self.password}@127.0.0.1:{port}/0"

    def env(self, port: int = 0) -> dict[str, str]:
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("BATCHQ_")},
            "BATCHQ_BROKER_URL": self.url(port or self.redis_port),
            "BATCHQ_HOME": str(self.folder / ".batchq"),
            "BATCHQ_LEASE_TTL_S": str(LEASE_S),
            "BATCHQ_TASKS": '["storm_tasks", "not_installed_anywhere"]',
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(self.folder), os.getenv("PYTHONPATH")])
            ),
            "TMPDIR": str(self.scratch),
            MARK: self.mark,
        }

    # What is started, and started again.

    def start_redis(self) -> None:
        """Starts Redis on its old data, and waits until it answers."""
        with (self.folder / "redis.log").open("ab") as log:
            self._children["redis"] = subprocess.Popen(
                [str(find_redis_server()), str(self.folder / "redis.conf")],
                stdout=log,
                stderr=log,
                env=self.env(),
            )
        with redis.Redis(port=self.redis_port, password=self.password) as client:
            wait_for(lambda: answers(client), "Redis answers", 30)

    def start_worker(self, number: int) -> None:
        """Starts a worker on the line of this number."""
        options = ("-Q", "batchq.llm,batchq.cpu", "-c", str(SLOTS))
        self._celery(f"worker{number}", self.proxies[number].port, *options)

    def start_coordinator(self) -> None:
        """Starts the coordinator."""
        self._celery("coordinator", self.redis_port, "-Q", "batchq.control", "-c", "1")

    def _celery(self, name: str, port: int, *options: str) -> None:
        self._number += 1
        quiet = ("-l", "warning", "--without-gossip", "--without-mingle")
        with (self.folder / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", "batchq", "worker", "-P", "threads"),
                    *("-n", f"{name}-{self._number}@storm", *quiet, *options),
                ],
                stdout=log,
                stderr=log,
                env=self.env(port),
                cwd=self.folder,
            )

    # What happens.

    def blow(self, is_over: Callable[[], bool]) -> None:
        """Lets one thing after another happen until the time or the run is over."""
        end = time.monotonic() + self.seconds
        happenings = [
            *(self.kill_worker, self.stop_worker, self.cut_line, self.replace_worker),
            *(self.kill_coordinator, self.kill_redis, self.stop_redis, self.restart_redis),
            self.send_nonsense,
        ]
        pending: list[Callable[[], None]] = []
        self.send_nonsense()
        while time.monotonic() < end and not is_over():
            if not pending:  # each of them before any comes again
                pending = self.rng.sample(happenings, len(happenings))
            pending.pop()()
            time.sleep(self.rng.uniform(0.5, 3.0))

    def kill_worker(self) -> None:
        """Kills a worker; another takes its place."""
        number = self._pick()
        self.tell(f"kill -9 worker {number}")
        self.exposed += SLOTS
        self._kill(f"worker{number}")
        self.start_worker(number)

    def stop_worker(self) -> None:
        """Stops a worker, as a machine that is suspended, for longer than its leases hold."""
        number, seconds = self._pick(), self.rng.uniform(1.0, 2.5) * LEASE_S
        self.tell(f"SIGSTOP worker {number} for {seconds:.1f} s")
        self.exposed += SLOTS
        self._stop_for(f"worker{number}", seconds)

    def cut_line(self) -> None:
        """Cuts a worker off from Redis for longer than its leases hold."""
        number, seconds = self._pick(), self.rng.uniform(1.0, 2.5) * LEASE_S
        reset = self.rng.random() < 0.5
        self.tell(f"cut the line of worker {number} for {seconds:.1f} s, reset: {reset}")
        self.exposed += SLOTS
        self.proxies[number].cut()
        time.sleep(seconds)
        self.proxies[number].mend(reset=reset)

    def replace_worker(self) -> None:
        """Ends a worker as a new release does, and starts another; nothing may be paid twice."""
        number = self._pick()
        self.tell(f"SIGTERM worker {number}")
        child = self._children[f"worker{number}"]
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"worker {number} does not end on SIGTERM") from None
        self.start_worker(number)

    def kill_coordinator(self) -> None:
        """Kills the coordinator; another takes its place."""
        self.tell("kill -9 coordinator")
        self._kill("coordinator")
        self.start_coordinator()

    def kill_redis(self) -> None:
        """Kills Redis; it comes back on its append-only file."""
        self.tell("kill -9 Redis")
        self._kill("redis")
        time.sleep(self.rng.uniform(0.0, 1.5))
        self.start_redis()

    def restart_redis(self) -> None:
        """Restarts Redis."""
        self.tell("restart Redis")
        self._children["redis"].terminate()
        self._children["redis"].wait(30)
        self.start_redis()

    def stop_redis(self) -> None:
        """Stops Redis for longer than leases hold: then nobody is alive for a moment."""
        seconds = self.rng.uniform(0.5, 1.5) * LEASE_S
        self.tell(f"SIGSTOP Redis for {seconds:.1f} s")
        if seconds > 0.7 * LEASE_S:
            self.exposed += WORKERS * SLOTS
        self._stop_for("redis", seconds)

    def send_nonsense(self) -> None:
        """Puts what is no message of ours into each queue, and ours once more."""
        self.tell("nonsense into the queues")
        ours = signer_of("", self.settings.broker_url)
        assert ours is not None
        with redis.Redis(port=self.redis_port, password=self.password) as client:
            for queue in ("batchq.llm", "batchq.cpu", "batchq.control"):
                real: Any = client.lindex(queue, self.rng.choice((0, -1)))
                for one in nonsense.messages(self.rng, real, ours):
                    (client.lpush if self.rng.random() < 0.5 else client.rpush)(queue, one)

    def _pick(self) -> int:
        return self.rng.randrange(WORKERS)

    def _kill(self, name: str) -> None:
        self._children[name].kill()
        self._children[name].wait()

    def _stop_for(self, name: str, seconds: float) -> None:
        self._children[name].send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._children[name].send_signal(signal.SIGCONT)

    def tell(self, what: str) -> None:
        self.hits[what.partition(" for ")[0].rstrip("0123456789 ").partition(" worker")[0]] += 1
        print(f"{time.monotonic() - self.began:6.1f} s  {what}", flush=True)

    # Afterwards.

    def state(self, info: RunInfo) -> RunState | None:
        try:
            return self.services.ledger.state(info.run)
        except QueueError:
            return None

    def is_over(self, info: RunInfo) -> bool:
        try:
            return info.run not in self.services.ledger.runs()
        except QueueError:
            return False

    def stats(self) -> dict[str, Any]:
        root = self.simulator_url.split("/v1")[0]
        with urllib.request.urlopen(f"{root}/stats", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def end(self, *, kill: bool = False) -> list[str]:
        """Stops everything; returns what did not stop when it was told to."""
        late = []
        for name in [*(name for name in self._children if name != "redis"), "redis"]:
            child = self._children.get(name)
            if child is None or child.poll() is not None:
                continue
            child.send_signal(signal.SIGCONT)
            child.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                late.append(f"{name} does not end on SIGTERM")
                child.kill()
                child.wait()
        for proxy in self.proxies:
            proxy.close()
        self.proxies.clear()
        return late

    def finish(self, info: RunInfo) -> None:
        """Returns when the run is over; TimeoutError if it goes on no more."""
        ended, changed_at = self.ended(info), time.monotonic()
        while not self.is_over(info):
            time.sleep(0.2)
            before, ended = ended, self.ended(info)
            if ended != before:
                changed_at = time.monotonic()
            if time.monotonic() - changed_at > STILL_S:
                raise TimeoutError(f"nothing more of the run has ended for {STILL_S:g} s")

    def ended(self, info: RunInfo) -> object:
        """How many items of each step have ended, and how many batches are collated."""
        ledger = self.services.ledger
        steps = [step.spec.number for step in info.plan.steps]
        counted = [sorted(ledger.counters(info.run, number).items()) for number in steps]
        return counted, len(ledger.open_batches(info.run))

    def problems(self, info: RunInfo) -> Iterator[str]:
        """What is not as it should be after the run."""
        folder = open_folder(info.folder)
        rows, errors = yield from self._uneven(folder, 1, self.items)
        _, hurt = yield from self._uneven(folder, 2, HURTFUL)
        yield from nonsense.wrong_reasons(hurt, self.hurtful)
        stats = self.stats()
        paid_twice = stats["duplicates"] + stats["repeats_in_flight"]
        print(f"{rows} ok, {len(errors)} failed: {Counter(row['kind'] for row in errors)}")
        print(f"{stats['accepted']} calls, {paid_twice} paid twice, {self.exposed} were at risk")
        if paid_twice > self.exposed:
            yield f"{paid_twice} calls were paid twice, {self.exposed} were in hands that were hit"
        left = [
            key
            for key in self.services.redis.scan_iter()
            if self.services.redis.ttl(key) == -1 and not str(key).startswith(NAMES_OF_THINGS)
        ]
        if left:
            yield f"keys that stay in Redis: {sorted(left)}"
        temporary = [path.name for path in Path(info.folder, "state", "tmp").glob("*")]
        if temporary:
            yield f"temporary files in the run folder: {len(temporary)}"

    def _uneven(self, folder: Any, step: int, items: int) -> Any:
        """Items of a step that are not there once; returns how many rows and which errors."""
        counts = Counter(outcome.index for outcome in folder.outcomes(step))
        if missing := set(range(items)) - set(counts):
            yield f"step {step}: {len(missing)} items are missing: {sorted(missing)[:10]}"
        if twice := [index for index, times in counts.items() if times > 1]:
            yield f"step {step}: {len(twice)} items are there twice: {twice[:10]}"
        rows = sum(1 for _ in folder.read_collated(step))
        path = f"{step:02d}_errors.json"
        errors = json.loads(folder.files.read(path)) if folder.files.exists(path) else []
        if rows + len(errors) != items:
            yield f"step {step}: {rows} rows and {len(errors)} errors are not {items} items"
        return rows, errors

    def leftovers(self) -> Iterator[str]:
        """What is still there when everything was stopped."""
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    yield f"process {process.pid} {' '.join(process.cmdline())[:100]}"
                    process.kill()
            except psutil.Error:
                continue
        if files := list(self.scratch.iterdir()):
            yield f"temporary files: {[file.name for file in files][:5]}"


def wait_for(condition: Callable[[], bool], what: str, deadline_s: float) -> None:
    """Returns when it holds; TimeoutError if it does not."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline_s:g} s: {what}")
        time.sleep(0.1)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def weather(storm: Storm) -> list[str]:
    """The storm, and what it did."""
    info = storm.begin()
    storm.blow(lambda: storm.is_over(info))
    storm.tell("calm")
    try:
        storm.finish(info)
    except TimeoutError as error:
        ledger = storm.services.ledger
        return [f"{error}: {ledger.about(info.run)} {ledger.open_batches(info.run)}"]
    found = [] if storm.state(info) is RunState.COMPLETED else [f"it is {storm.state(info)}"]
    storm.tell("the run is over")
    return [*found, *storm.problems(info)]


def main() -> int:
    """Runs a storm and tells what is wrong."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    options.add_argument("--seconds", type=float, default=300.0)
    options.add_argument("--items", type=int, default=10_000)
    options.add_argument("--keep", action="store_true", help="keep the folder of a failed one")
    given = options.parse_args()
    print(f"seed {given.seed}: {given.items} items, {given.seconds:g} s", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="batchq-storm-"))
    storm = Storm(folder, given.seed, given.seconds, given.items)
    found = ["it was broken off"]
    try:
        found = weather(storm)
        found += storm.end()
        found += storm.leftovers()
    finally:
        storm.end(kill=True)
        if given.keep and found:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)
    print("\n".join(["", *found, f"seed {given.seed}"]) if found else "all is well")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
