"""One worker and one coordinator through many items that do nothing: what grows on the way?

    memory.py [--items 200000]

Prints their memory, and connections, keys and memory of Redis, each time a tenth of the items is
done. Ends with 1 if one of them grows after the first fifth: by more than a tenth, or 10 MB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from batchq.embedded.server import start_redis
from batchq.manifest.loader import load_manifest
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import make_plan
from batchq.queue import control
from batchq.runs.life import create_run
from batchq.services import Services, build_services
from batchq.settings import Settings

MANIFEST = """
name: memory
steps:
  - {{name: noop, input: {{generate: {items}}}, task: "noop_tasks:noop", batch_size: 500,
     concurrent_batches: 4}}
"""
COLUMNS = ("worker MB", "coordinator MB", "connections", "keys", "Redis MB")
SLACK = {"worker MB": 10.0, "coordinator MB": 10.0, "Redis MB": 5.0, "connections": 5, "keys": 20}
GROWTH = 1.1


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--items", type=int, default=200_000)
    items = options.parse_args().items
    with tempfile.TemporaryDirectory(prefix="batchq-memory-") as name:
        folder = Path(name)
        server = start_redis(folder / "redis", Settings())
        settings = Settings(broker_url=server.url, home=folder / ".batchq")
        processes = [
            start(folder, settings, "batchq.cpu", 4),
            start(folder, settings, "batchq.control", 1),
        ]
        try:
            rows = measure(folder, build_services(settings), processes, items)
        finally:
            for process in processes:
                process.terminate()
                process.wait(60)
            server.stop()
    return judge(rows)


def start(folder: Path, settings: Settings, queue: str, slots: int) -> psutil.Popen:
    env = {
        **os.environ,
        "BATCHQ_BROKER_URL": settings.broker_url,
        "BATCHQ_HOME": str(settings.home),
        "BATCHQ_TASKS": '["noop_tasks"]',
        "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    (folder / "noop_tasks.py").write_text("def noop(item):\n    return item\n")
    argv = [sys.executable, "-m", "batchq.queue.worker", "-Q", queue, "-P", "threads"]
    options = ["-c", str(slots), "--without-gossip", "--without-mingle", "-l", "error"]
    return psutil.Popen([*argv, *options], env=env, cwd=folder, stderr=subprocess.DEVNULL)


def measure(
    folder: Path, services: Services, processes: list[psutil.Popen], items: int
) -> list[dict[str, float]]:
    manifest = folder / "m.yaml"
    manifest.write_text(MANIFEST.format(items=items))
    loaded = load_manifest(manifest)
    plan = make_plan(loaded)
    info = create_run(plan, manifest_lock(loaded, plan), services, now=time.time())
    began = time.monotonic()
    control.start(info, services)
    rows: list[dict[str, float]] = []
    print(f"{'items':>9} {'items/s':>8}", *(f"{column:>15}" for column in COLUMNS))
    while len(rows) < 10:
        done = services.ledger.counters(info.run, 1).get("ok", 0)
        if done < (len(rows) + 1) * items // 10:
            time.sleep(0.2)
            continue
        worker, coordinator = (process.memory_info().rss / 1e6 for process in processes)
        about = services.redis.info()
        # Celery keeps who claimed the end of a chord for five minutes: a key a batch.
        keys = sum(not str(key).endswith(".c") for key in services.redis.scan_iter(count=1000))
        used = about["used_memory"] / 1e6
        values = (worker, coordinator, about["connected_clients"], keys, used)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
        rate = done / (time.monotonic() - began)
        print(f"{done:>9} {rate:>8.0f}", *(f"{value:>15.1f}" for value in values), flush=True)
    return rows


def judge(rows: list[dict[str, float]]) -> int:
    early, late = rows[1], rows[-1]
    grown = [
        column
        for column in COLUMNS
        if late[column] > max(early[column] * GROWTH, early[column] + SLACK[column])
    ]
    print("these grow: " + ", ".join(grown) if grown else "nothing grows")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
