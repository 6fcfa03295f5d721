"""What Celery's task events cost, and what Flower keeps of them.

    events.py cost [--items 2000] [--runs 3]     items/s with events and without, in turns
    events.py flower [--items 100000]            Flower's memory while so many items pass, watched

`cost` switches the events of one prefork worker with two slots on and off, as `batchq flower` does
while somebody looks at tasks. `flower` keeps them on, with a batchq flower that gets all of them;
it ends with 1 if Flower grows by more than a tenth, or 20 MB, after the first fifth.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from batchq.embedded.server import start_redis
from batchq.manifest.loader import load_manifest
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import make_plan
from batchq.progress import RunState
from batchq.queue import control
from batchq.queue.app import make_app
from batchq.runs.life import create_run
from batchq.services import Services, build_services
from batchq.settings import Settings

MANIFEST = """
name: events
steps:
  - {{name: noop, input: {{generate: {items}}}, task: "noop_tasks:noop", batch_size: 250,
     concurrent_batches: 4}}
"""
WORKER = (sys.executable, "-m", "batchq.queue.worker", "--without-gossip", "--without-mingle")
GROWTH, SLACK_MB = 1.1, 20.0


@contextmanager
def cluster(folder: Path) -> Iterator[Services]:
    """A Redis, a coordinator and one worker."""
    (folder / "noop_tasks.py").write_text("def noop(item):\n    return item\n")
    server = start_redis(folder / "redis", Settings())
    settings = Settings(broker_url=server.url, home=folder / ".batchq")
    env = {
        **os.environ,
        "BATCHQ_BROKER_URL": server.url,
        "BATCHQ_HOME": str(settings.home),
        "BATCHQ_TASKS": '["noop_tasks"]',
        "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))),
    }
    argvs = [
        [*WORKER, "-Q", "batchq.control", "-P", "threads", "-c", "1", "-l", "error"],
        [*WORKER, "-Q", "batchq.cpu", "-P", "prefork", "-c", "2", "-l", "error"],
    ]
    children = [
        psutil.Popen(argv, env=env, cwd=folder, stderr=subprocess.DEVNULL) for argv in argvs
    ]
    try:
        yield build_services(settings)
    finally:
        for child in children:
            child.terminate()
            child.wait(60)
        server.stop()


def run(items: int, folder: Path, services: Services, look: Callable[[int], None]) -> float:
    """Runs so many items that do nothing; returns items/s."""
    path = folder / "m.yaml"
    path.write_text(MANIFEST.format(items=items))
    manifest = load_manifest(path)
    plan = make_plan(manifest)
    info = create_run(plan, manifest_lock(manifest, plan), services, now=time.time())
    began = time.perf_counter()
    control.start(info, services)
    while services.ledger.state(info.run) is not RunState.COMPLETED:
        look(services.ledger.counters(info.run, 1).get("ok", 0))
        time.sleep(0.05)
    return items / (time.perf_counter() - began)


def cost(items: int, runs: int) -> int:
    with tempfile.TemporaryDirectory(prefix="batchq-events-") as name:
        folder = Path(name)
        with cluster(folder) as services:
            switch = make_app(services.settings).control
            run(100, folder, services, lambda _: None)
            pairs = []
            print(f"{'without':>9} {'with':>9} {'ratio':>6}   items/s of {items:,} items")
            for _ in range(runs):
                switch.disable_events()
                without = run(items, folder, services, lambda _: None)
                switch.enable_events()
                events = run(items, folder, services, lambda _: None)
                pairs.append(events / without)
                print(f"{without:>9.0f} {events:>9.0f} {pairs[-1]:>6.2f}", flush=True)
            print(f"median: {statistics.median(pairs):.2f}")
    return 0


def flower(items: int) -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="batchq-events-") as name:
        folder = Path(name)
        with cluster(folder) as services:
            settings = services.settings
            env = {**os.environ, "BATCHQ_BROKER_URL": settings.broker_url}
            env["BATCHQ_HOME"] = str(settings.home)
            argv = [sys.executable, "-m", "batchq", "flower", f"--port={port}"]
            process = psutil.Popen([*argv, "--enable_events=True"], env=env, cwd=folder)
            rows: list[float] = []

            def look(done: int) -> None:
                if done >= (len(rows) + 1) * items // 10:
                    rows.append(process.memory_info().rss / 1e6)
                    print(f"{done:>9} {rows[-1]:>9.1f} MB of Flower", flush=True)

            try:
                run(100, folder, services, lambda _: None)
                rate = run(items, folder, services, look)
                look(items)
            finally:
                process.terminate()
                process.wait(30)
    print(f"{rate:.0f} items/s, watched")
    is_bound = rows[-1] <= max(rows[1] * GROWTH, rows[1] + SLACK_MB)
    print("it stays" if is_bound else "it grows")
    return 0 if is_bound else 1


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("part", choices=("cost", "flower"))
    options.add_argument("--items", type=int)
    options.add_argument("--runs", type=int, default=3)
    asked = options.parse_args()
    if asked.part == "cost":
        return cost(asked.items or 2000, asked.runs)
    return flower(asked.items or 100_000)


if __name__ == "__main__":
    sys.exit(main())
