"""Kills a process of a run before each of its writes, and compares what others make of the run.

    takeover.py [--role coordinator] [--scenario complete] [--every 1] [--only 0] [--fault death]

A run is driven by hand: one process is coordinator and worker in turn, with the real tasks, chord
and folder. It counts what the one role writes (files, catalog, Redis) and dies by `os._exit`
before its k-th write, which is also after the one before it. Of `--fault torn` half of a message to
Redis is sent first. Another process takes the run over, some leases later by its clock. Afterwards
folder and catalog must equal those of an undisturbed run, and nothing may be in Redis for ever.

With `--fault full` nothing dies, but from the k-th write on the disk is full, until the run has
paused; then there is room again and a person resumes it, and no item may run twice.

Prints a line of JSON for each k, and ends with 1 if one of them differs.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import redis
from celery.app.trace import build_tracer
from reaper import Fault, Reaper

from batchq.embedded.server import start_redis
from batchq.ledger.keys import ALIVE, lock, uploading
from batchq.manifest.loader import load_manifest
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import make_plan
from batchq.progress import RunState
from batchq.providers import get_uploads
from batchq.queue import control
from batchq.queue.advance import advance
from batchq.queue.app import BatchqApp, make_app
from batchq.runs.life import create_run
from batchq.runs.uploads import Uploads
from batchq.services import build_services
from batchq.settings import Settings, redis_client_url

LEASE_S = 2.0
STUCK_AFTER_S = 1800.0

TASKS = """
from pathlib import Path

def note(call):
    with open(Path(__file__).with_name("calls.txt"), "a") as file:
        file.write(f"{call}\\n")

def number(item):
    note(f"number-{item['number']}")
    if item["number"] == 2:
        raise ValueError("two")
    return {"n": item["number"], "confidence": 0.5}

def double(item):
    note(f"double-{item['n']}")
    return {"n": 2 * item["n"]}
"""

STEPS = """
steps:
  - {name: number, input: {generate: 5}, task: "takeover_tasks:number", batch_size: 2,
     concurrent_batches: 2, retry: {max_retries: 0}%s}
  - {name: double, task: "takeover_tasks:double", batch_size: 3}
"""
UPLOADS = """
providers:
  sim: {kind: simulator, base_url: "%s", limits: {upload_lines: 3},
        prices: {input_per_1m: 2, output_per_1m: 8}}
budget: {usd: 1}
steps:
  - {name: ask, input: {generate: 5}, prompt: "Say {number}\\n.", batch_size: 2, mode: %s,
     retry: {max_retries: 1, base: 0s}}
"""
SIMULATED = {
    "uploads": {"latency_ms": 0},
    "leftovers": {"latency_ms": 0, "batch_expire_rate": 0.5, "batch_window_s": 0.1, "seed": 3},
}
MODES = {"uploads": "batch", "leftovers": "auto"}
MANIFESTS = {
    "complete": STEPS % "",
    "failed": STEPS % ", stop_on_error: true",
    "paused": STEPS % "",
    "cancelled": STEPS % "",
    "uploads": UPLOADS,
    "leftovers": UPLOADS,
}
ENDS = {"failed": RunState.FAILED, "cancelled": RunState.CANCELLED}

# Different in any two runs: times, and the order in which a log was written.
TIMES = re.compile(
    rb'"(\w+_at|waited_s|duration_\w+|avg_latency\w*|created|started|ended|worker)":\s*("[^"]*"|[\d.e-]+|null)'
)
ROW_COLUMNS = re.compile(r"\w+_at|duration_\w+|latency\w*|id")
UNCOMPARED = ("state/log.jsonl", "_uploads/")

_real_time = time.time


class World:
    """One run, which can be put back to its start."""

    def __init__(self, broker_url: str, folder: Path, scenario: str) -> None:
        self.scenario = scenario
        self.broker_url = broker_url
        self.folder = folder
        self.place = folder / "project"
        self.start = folder / "start"
        self.note = folder / "note"  # what a victim tells of its end
        self.place.mkdir(parents=True)
        (self.place / "takeover_tasks.py").write_text(TASKS)
        sys.path.insert(0, str(self.place))
        manifest = self.place / "manifest.yaml"
        text = MANIFESTS[scenario]
        self.simulator = ""
        if scenario in SIMULATED:
            self.simulator = self.start_simulator(SIMULATED[scenario])
            text = text % (self.simulator, MODES[scenario])
        manifest.write_text(f"name: {scenario}\n{text}")
        loaded = load_manifest(manifest)
        plan = make_plan(loaded)
        services = build_services(self.settings())
        self.info = create_run(plan, manifest_lock(loaded, plan), services, now=time.time())
        shutil.copytree(self.place, self.start)

    def start_simulator(self, options: dict[str, Any]) -> str:
        """Starts a provider, which ends with us; returns its URL."""
        command = [sys.executable, "-m", "batchq.simulator", "--options", json.dumps(options)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        atexit.register(process.kill)
        return process.stdout.readline().strip()

    def paid(self) -> dict[str, Any]:
        """What was paid at the provider since the last reset, by the way that it went."""
        if not self.simulator:
            return {}
        with urllib.request.urlopen(f"{self.simulator.removesuffix('/v1')}/stats") as answer:
            stats = json.load(answer)
        paid = stats["paid"]
        return {"online": paid["online"]["answers"], "batch": paid["batch"]["answers"]}

    def settings(self) -> Settings:
        return Settings(
            broker_url=self.broker_url,
            home=self.place / ".batchq",
            lease_ttl_s=LEASE_S,
            tasks=["takeover_tasks"],
        )

    def reset(self) -> None:
        """Puts folder, catalog and Redis back to the moment after the submit."""
        shutil.rmtree(self.place)
        shutil.copytree(self.start, self.place)
        with self.redis() as client:
            client.flushall()
        services = build_services(self.settings())
        control.start(self.info, services)
        services.redis.close()
        if self.simulator:
            root = self.simulator.removesuffix("/v1")
            urllib.request.urlopen(f"{root}/reset", data=b"").close()

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(redis_client_url(self.broker_url), decode_responses=True)

    def let_leases_end(self) -> None:
        """Takes from Redis what would have ended by itself while nobody took the run over."""
        with self.redis() as client:
            locks = (lock(self.info.run), uploading(self.info.run))
            for key in [*filter(client.exists, locks), *client.scan_iter(ALIVE + "*")]:
                left_ms = client.pttl(key)
                if left_ms == -1:
                    raise AssertionError(f"{key} would never end")
                client.delete(key)

    def contents(self) -> dict[str, bytes]:
        """What a run left behind, with times taken out."""
        found = {}
        root = Path(self.info.folder).parent
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if path.is_symlink():
                found[name] = str(path.readlink()).encode()
            elif path.is_file() and not any(part in name for part in UNCOMPARED):
                is_exact = "/items/" in name or "/collated/" in name
                data = path.read_bytes()
                found[name] = data if is_exact else TIMES.sub(rb'"\1":0', data)
        with sqlite3.connect(self.place / ".batchq" / "catalog.sqlite") as database:
            found["catalog"] = "\n".join(_rows(database)).encode()
        database.close()
        return found

    def calls_twice(self) -> list[str]:
        """The calls of tasks that were made more than once."""
        made = Counter((self.place / "calls.txt").read_text().split())
        return [call for call, times in made.items() if times > 1]

    def strays(self) -> list[str]:
        """Keys that would stay in Redis for ever, but for those that name queues."""
        with self.redis() as client:
            return sorted(
                f"{key} ({client.type(key)})"
                for key in client.scan_iter()
                if client.ttl(key) == -1 and not key.startswith(("_kombu.binding", "batchq:limits"))
            )


def _rows(database: sqlite3.Connection) -> Iterator[str]:
    tables = [
        row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type='table'")
    ]
    for table in sorted(tables):
        cursor = database.execute(f'SELECT * FROM "{table}"')
        names = [column[0] for column in cursor.description]
        lines = []
        for row in cursor:
            kept = {n: v for n, v in zip(names, row, strict=True) if not ROW_COLUMNS.fullmatch(n)}
            lines.append(f"{table} {json.dumps(kept, sort_keys=True, default=str)}")
        yield from sorted(lines)


class Driver:
    """Plays all processes of a run in turn until it is over."""

    def __init__(self, world: World, reaper: Reaper, role: str) -> None:
        self.world = world
        self.reaper = reaper
        self.run = world.info.run
        self.app: BatchqApp = make_app(world.settings())
        self.app.loader.import_default_modules()
        self.app.finalize()
        self.services = self.app.services
        self.ledger = self.services.ledger
        self.client = self.services.redis
        self._as = {"coordinator": lambda do: do(), "worker": lambda do: do()}
        self._as[role] = reaper.watch
        self._offset = 0.0
        self.uploads = Uploads(self.services)
        wire = get_uploads("simulator")
        if not hasattr(wire, "really_create"):  # as if it was a write: a victim may die before it
            wire.really_create = wire.create
        wire.create = lambda *about: (reaper.write("create"), wire.really_create(*about))[1]

    def go(self, late_s: float = 0.0) -> None:
        """Drives the run to its end, with a clock that is late by so much and passes quickly."""
        self._offset = late_s
        time.time = lambda: _real_time() + self._offset
        while self.run in self.ledger.runs():
            moved = self._handle("batchq.control", "coordinator")
            due = self._as["coordinator"](lambda: self.ledger.take_due(time.time(), again_s=5.0))
            for run in due:
                self._as["coordinator"](lambda run=run: advance(run, self.app))
                moved = True
            looked = self._as["coordinator"](lambda: self.uploads.look_at_due(time.time()))
            moved = looked or moved
            for queue in ("batchq.cpu", "batchq.llm"):
                moved = self._handle(queue, "worker") or moved
            self._intervene()
            if not moved:
                self._offset += 3.0
            if self._offset > late_s + STUCK_AFTER_S:
                raise AssertionError(f"stuck: {self.ledger.about(self.run)}")
        # Messages of a run that is over may wait still: workers find that there is nothing to do.
        while self._handle("batchq.cpu", "worker") or self._handle("batchq.control", "coordinator"):
            continue
        self._offset += 60.0  # a look that a victim died in is due again by now
        self._as["coordinator"](lambda: self.uploads.look_at_due(time.time()))

    def _handle(self, queue: str, role: str) -> bool:
        text = self.client.rpop(queue)
        if text is None:
            return False
        message = json.loads(str(text))
        args, kwargs, embed = json.loads(base64.b64decode(message["body"]).partition(b"\n")[2])
        headers = message["headers"]
        task = self.app.tasks[headers["task"]]
        request = {
            **headers,
            **message["properties"],
            "chord": embed["chord"],
            "callbacks": embed["callbacks"],
            "errbacks": embed["errbacks"],
            "chain": embed["chain"],
            "is_eager": False,
        }
        trace = build_tracer(task.name, task, app=self.app)
        self._as[role](lambda: trace(headers["id"], args, kwargs, request))
        return True

    def _intervene(self) -> None:
        """What a person does at a fixed moment of some scenarios."""
        scenario = self.world.scenario
        if self.reaper.is_full and self.ledger.state(self.run) is RunState.PAUSED:
            if "full" not in self.ledger.about(self.run)["reason"]:
                raise AssertionError(f"paused, but why? {self.ledger.about(self.run)}")
            self.reaper.is_full = False
            control.resume(self.world.info, self.services, is_private=False)
        if scenario not in ("paused", "cancelled"):
            return
        state, note = self.ledger.state(self.run), f"person:{self.run}"
        if state is RunState.RUNNING and not self.client.get(note):
            if self.ledger.counters(self.run, 1).get("ok", 0) >= 1:
                wanted = ENDS.get(scenario, RunState.PAUSED)
                self.client.set(note, "stopped", ex=3600)
                control.stop(self.run, wanted, "a person", self.services)
        elif state is RunState.PAUSED and self.ledger.is_resting(self.run):
            control.resume(self.world.info, self.services, is_private=False)


def in_child(action: Callable[[], None]) -> int:
    """Runs an action in a fork; returns how that ended."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:  # noqa: BLE001 (a fork must never return into its parent's code)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def count_writes(world: World, role: str, fault: Fault) -> list[str]:
    """Drives the run undisturbed; returns what the role writes."""

    def undisturbed() -> None:
        reaper = Reaper(world.note, fault=fault)
        reaper.install()
        Driver(world, reaper, role).go()
        world.note.write_text(json.dumps(reaper.writes))

    world.reset()
    if in_child(undisturbed):
        sys.exit("the undisturbed run failed")
    return list(json.loads(world.note.read_text()))


def fail_and_follow(world: World, role: str, number: int, fault: Fault) -> str:
    """Lets a fault hit the role at a write and others finish; returns what went wrong."""

    def victim() -> None:
        reaper = Reaper(world.note, number, fault)
        reaper.install()
        Driver(world, reaper, role).go()

    world.reset()
    code = in_child(victim)
    if fault == "full":
        twice = world.calls_twice()
        return f"ended with {code}" if code else f"ran twice: {twice}" if twice else ""
    if code == 0:
        return ""  # random ids made this run some writes shorter: it was over before
    if code != 9:
        return f"the victim ended by itself with {code}"
    world.let_leases_end()
    if in_child(lambda: Driver(world, Reaper(world.note), role).go(late_s=60.0)):
        return "its successor failed"
    return ""


def differences(expected: dict[str, bytes], found: dict[str, bytes]) -> str:
    """What differs between two runs, in a line."""
    parts = [f"- {name}" for name in expected.keys() - found.keys()]
    parts += [f"+ {name}" for name in found.keys() - expected.keys()]
    for name in sorted(expected.keys() & found.keys()):
        if expected[name] != found[name]:
            before = set(expected[name].splitlines())
            after = set(found[name].splitlines())
            parts.append(f"~ {name}: {sorted(before - after)[:3]} -> {sorted(after - before)[:3]}")
    return "; ".join(sorted(parts))


def main() -> int:
    """Walks through all writes."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--role", choices=["coordinator", "worker"], default="coordinator")
    options.add_argument("--scenario", choices=MANIFESTS, default="complete")
    options.add_argument("--every", type=int, default=1, help="only so many, from a random one on")
    options.add_argument("--only", type=int, default=0, help="only this one")
    options.add_argument("--fault", choices=get_args(Fault), default="death")
    given = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="batchq-takeover-"))
    server = start_redis(folder / "redis", Settings())
    try:
        return walk(World(server.url, folder / "world", given.scenario), given)
    finally:
        server.stop()
        shutil.rmtree(folder)


def walk(world: World, given: argparse.Namespace) -> int:
    """Kills before one write after another."""
    writes = count_writes(world, given.role, given.fault)
    expected, paid = world.contents(), world.paid()
    first = given.only or random.randint(1, given.every)
    bad = 0
    tell({"writes": len(writes), "from": first, "strays": world.strays()})
    for number in [first] if given.only else range(first, len(writes) + 1, given.every):
        wrong = fail_and_follow(world, given.role, number, given.fault)
        wrong = wrong or differences(expected, world.contents())
        if not wrong and given.role == "coordinator" and world.paid() != paid:
            wrong = f"paid {world.paid()} instead of {paid}"
        if not wrong and (strays := world.strays()):
            wrong = f"left in Redis: {strays}"
        bad += bool(wrong)
        tell({"write": number, "before": world.note.read_text(), "wrong": wrong})
    return 1 if bad else 0


def tell(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
