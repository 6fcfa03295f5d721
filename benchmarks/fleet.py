"""Worker processes that call a simulator under batchq's limits, and what the server saw of it.

Each process is what a Celery worker is without Celery: threads that run items with `run_item`, with
the tools that `build_services` makes, over one real Redis and real HTTP. The figures come from the
server's own log of calls, not from the clients.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import redis

from batchq.embedded.server import start_redis
from batchq.engine.runner import run_item
from batchq.ledger.memory import MemoryLedger
from batchq.manifest.loader import load_manifest
from batchq.plan import Item, StepSpec
from batchq.planning.planner import make_plan
from batchq.ports import ItemRef
from batchq.services import build_services
from batchq.settings import Settings, redis_client_url

MANIFEST = """
name: limits
config: {{output_dir: out}}
providers:
  sim: {{kind: openai, base_url: "{url}/v1", model: {model}, limits: {limits}}}
steps:
  - name: ask
    input: items.json
    prompt: |
      {{text}}
    options: {{max_tokens: 30}}
    output_schema: {{type: object, properties: {{topic: {{enum: [a, b]}}}}, required: [topic]}}
    retry: {{max_retries: 8, base: 500ms}}
"""
PRELOADED = ["batchq.engine.runner", "batchq.services", "batchq.limiter", "batchq.providers.openai"]
IDLE_S = 0.2
"""How long a slot sleeps that has nothing to do until a waiting item is due."""
PROCESSES = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Fleet:
    """The worker processes of one run. `model` is how the server's log knows the run."""

    limits: str
    processes: int = 1
    threads: int = 8
    items: int = 10**9
    seconds: float = 120.0
    model: str = "m"
    start_s: float = 0.0  # when the first process starts
    apart_s: float = 0.0  # and how long after it the last one
    tokens: tuple[int, int] = (20, 20)  # least and most of a prompt


@dataclass(frozen=True)
class _Share:
    """What one process is told."""

    broker_url: str
    home: str
    run: str
    step: StepSpec
    fleet: Fleet
    wait_s: float


@dataclass(frozen=True)
class Seen:
    """The calls that the server saw, oldest first, with seconds since the first of them."""

    calls: Sequence[Mapping[str, Any]] = field(repr=False)

    def part(self, start_s: float, end_s: float, model: str = "") -> Seen:
        """The calls of a span, and of one run."""
        return Seen(
            [
                call
                for call in self.calls
                if start_s <= call["at"] < end_s and (not model or call["model"] == model)
            ]
        )

    @property
    def admitted(self) -> list[Mapping[str, Any]]:
        return [call for call in self.calls if not call["refused_by"]]

    @property
    def refused(self) -> int:
        """How many were answered by 429."""
        return len(self.calls) - len(self.admitted)

    def share_of(self, per_minute: float, unit: str = "requests") -> float:
        """What the calls made of the allowed rate, from the first admitted call to the last."""
        calls = self.admitted
        if len(calls) < 2:
            return 0.0
        sizes = [1 if unit == "requests" else call["tokens"] for call in calls]
        # The last call only ends the span: what it used would come after it.
        return sum(sizes[:-1]) / (calls[-1]["at"] - calls[0]["at"]) * 60 / per_minute


class Server:
    """A simulator in a process of its own."""

    def __init__(self, **options: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "batchq.simulator", "--options", json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def change(self, **options: Any) -> float:
        """Changes options without notice; returns when, in the clock of the log."""
        request = urllib.request.Request(
            f"{self.url}/control", data=json.dumps(options).encode(), method="POST"
        )
        urllib.request.urlopen(request).close()
        return time.monotonic()

    def seen(self) -> tuple[Seen, float]:
        """What it saw, and when, in the clock of the log, the first call came."""
        with urllib.request.urlopen(f"{self.url}/calls") as answer:
            calls = json.load(answer)["calls"]
        if not calls:
            return Seen([]), time.monotonic()
        first = calls[0]["at"]
        return Seen([{**call, "at": call["at"] - first} for call in calls]), first

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@contextmanager
def server(**options: Any) -> Iterator[Server]:
    """A simulator that ends with the block."""
    one = Server(**options)
    try:
        yield one
    finally:
        one.stop()


@contextmanager
def fleets(url: str, *wanted: Fleet) -> Iterator[list[Any]]:
    """Runs fleets against a server, over a Redis of their own; yields their processes.

    Leaving the block waits for them. Raises ManifestError if batchq does not take the limits.
    """
    PROCESSES.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory(prefix="bq") as name:
        folder = Path(name)
        plans = [_step(folder, url, one) for one in wanted]
        redis_server = start_redis(folder / "redis", Settings())
        processes = []
        try:
            for number, (one, step) in enumerate(zip(wanted, plans, strict=True)):
                for which in range(one.processes):
                    wait_s = one.start_s + one.apart_s * which / max(1, one.processes - 1)
                    share = _Share(redis_server.url, name, f"run{number}", step, one, wait_s)
                    process = PROCESSES.Process(target=_work, args=(share,))
                    process.start()
                    processes.append(process)
            yield processes
            for process in processes:
                process.join()
        finally:
            for process in processes:
                process.kill()
                process.join()
            redis_server.stop()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a worker process failed; its traceback is above")


def _step(folder: Path, url: str, fleet: Fleet) -> StepSpec:
    (folder / "items.json").write_text('[{"text": "one item for the plan"}]')
    path = folder / f"{fleet.model}.yaml"
    path.write_text(MANIFEST.format(url=url, model=fleet.model, limits=fleet.limits))
    return make_plan(load_manifest(path)).steps[0].spec


def _work(share: _Share) -> None:
    """The body of one process: as many threads as slots, until there is nothing left to do."""
    logging.disable(logging.WARNING)
    time.sleep(share.wait_s)
    settings = Settings(broker_url=share.broker_url, home=Path(share.home))
    services = build_services(settings)
    ledger = MemoryLedger()
    counter = redis.Redis.from_url(redis_client_url(share.broker_url))
    ends_at = time.monotonic() + share.fleet.seconds - share.wait_s

    def slot() -> None:
        while (number := _take(share, counter)) is not None and time.monotonic() < ends_at:
            if number < 0:
                time.sleep(IDLE_S)
                continue
            item = Item(str(number), number, {"text": _text(number, share.fleet.tokens)})
            ref = ItemRef(share.run, share.step.number, 0, number)
            owner = f"{os.getpid()}/{share.run}"
            receipt = run_item(ref, item, share.step, ledger, owner, services.tools)
            if receipt.again_s:  # as Celery's retry does
                due = {str(number): time.time() + receipt.again_s}
                counter.zadd(f"bench:{share.run}:later", due)
            else:
                counter.incr(f"bench:{share.run}:done")

    slots = [threading.Thread(target=slot) for _ in range(share.fleet.threads)]
    for one in slots:
        one.start()
    for one in slots:
        one.join()
    errors = [outcome.error for outcome in ledger.outcomes.values() if outcome.error]
    if errors:  # what the server saw does not tell why
        print(f"{len(errors)} items failed: {errors[0].kind}: {errors[0].message}", file=sys.stderr)


def _take(share: _Share, counter: redis.Redis) -> int | None:
    """The next number: one that waited and is due, else a new one; -1: none yet, None: no more."""
    key = f"bench:{share.run}"
    for number in counter.zrangebyscore(f"{key}:later", 0, time.time(), 0, 1):
        if counter.zrem(f"{key}:later", number):
            return int(number)
    if int(counter.get(key) or 0) < share.fleet.items:
        number = int(counter.incr(key)) - 1
        if number < share.fleet.items:
            return number
    return None if int(counter.get(f"{key}:done") or 0) >= share.fleet.items else -1


def _text(number: int, tokens: tuple[int, int]) -> str:
    """A prompt of its own for every number; the same number gives the same."""
    size = Random(number).randint(*tokens) * 4
    return f"Item {number}. " + "word " * (size // 5)
