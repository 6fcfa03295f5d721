"""Items/s of no-op items through batchq against a raw Celery chord, side by side.

    python benchmarks/overhead.py [--items 1000 10000] [--pool prefork] [--slots 2] [--runs 3]
                                  [--late-acks]

Both sides use the same Redis, the same pool and the same number of slots, in turns; the time runs
from handing the work over to having its result: the chord's callback, batchq's collated file. What
batchq does besides (claims, outcomes, item files, the catalog) is in its time.

The raw side has Celery's defaults: it acknowledges early, fetches four messages a slot ahead and
loses what a killed worker held. With `--late-acks` it loses nothing either, at Celery's price.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from celery import Celery, chord

from batchq.embedded.server import start_redis
from batchq.manifest.loader import load_manifest
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import make_plan
from batchq.ports import RunState
from batchq.queue import control
from batchq.runs.life import create_run
from batchq.services import Services, build_services
from batchq.settings import Settings, redis_client_url

BROKER = os.environ.get("OVERHEAD_BROKER", "redis://")
app = Celery("overhead", broker=BROKER)
app.conf.update(
    result_backend=BROKER,
    task_default_queue="raw",
    result_backend_thread_safe=True,
)
if os.environ.get("OVERHEAD_LATE_ACKS"):
    app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1)


@app.task(name="overhead.noop")
def noop(item: dict[str, int]) -> dict[str, int]:
    return item


@app.task(name="overhead.collect", ignore_result=True)
def collect(items: list[dict[str, int]], key: str) -> None:
    app.backend.client.set(key, len(items))


MANIFEST = """
name: overhead
config: {{output_dir: out}}
steps:
  - name: noop
    input: {{generate: {items}}}
    task: overhead_task:noop
    batch_size: {batch}
    concurrent_batches: 4
"""


@contextmanager
def worker(argv: list[str], env: dict[str, str], cwd: Path) -> Iterator[None]:
    with (cwd / f"worker{time.time()}.log").open("wb") as log:
        child = subprocess.Popen(argv, env={**os.environ, **env}, cwd=cwd, stderr=log, stdout=log)
        try:
            yield
        finally:
            child.terminate()
            child.wait(30)


def wait(condition: Callable[[], object], deadline_s: float = 600) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)


def raw(items: int, client: redis.Redis) -> float:
    key = f"raw:{time.time()}"
    began = time.perf_counter()
    # The same items as `generate` makes for batchq.
    chord(noop.s({"index": n, "number": n + 1}) for n in range(items))(collect.s(key))
    wait(lambda: client.get(key))
    return items / (time.perf_counter() - began)


def ours(items: int, batch: int, folder: Path, services: Services) -> float:
    path = folder / "manifest.yaml"
    path.write_text(MANIFEST.format(items=items, batch=batch))
    manifest = load_manifest(path)
    plan = make_plan(manifest)
    began = time.perf_counter()
    info = create_run(plan, manifest_lock(manifest, plan), services, now=time.time())
    control.start(info, services)
    wait(lambda: services.ledger.state(info.run) is RunState.COMPLETED)
    return items / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--pool", default="prefork")
    parser.add_argument("--slots", default="2")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--late-acks", action="store_true", help="of the raw side")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "overhead_task.py").write_text("def noop(item):\n    return item\n")
        server = start_redis(folder / "redis", Settings())
        settings = Settings(broker_url=server.url, home=folder / ".batchq")
        services = build_services(settings)
        client = redis.Redis.from_url(redis_client_url(server.url))
        app.conf.update(broker_url=server.url, result_backend=server.url)
        celery = [sys.executable, "-m", "celery"]
        pool = ["-P", options.pool, "-c", options.slots, "--without-gossip", "--without-mingle"]
        env = {
            "OVERHEAD_BROKER": server.url,
            "OVERHEAD_LATE_ACKS": "1" if options.late_acks else "",
            "BATCHQ_BROKER_URL": server.url,
            "BATCHQ_HOME": str(folder / ".batchq"),
            "BATCHQ_TASKS": '["overhead_task"]',
            "PYTHONPATH": f"{folder}:{Path(__file__).parent}",
        }
        control_pool = ["-P", "threads", "-c", "2", "--without-gossip", "--without-mingle"]
        try:
            with (
                worker([*celery, "-A", "overhead", "worker", "-Q", "raw", *pool], env, folder),
                worker([*celery, "-A", "batchq", "worker", *pool], env, folder),
                worker(
                    [*celery, "-A", "batchq", "worker", "-Q", "batchq.control", *control_pool],
                    env,
                    folder,
                ),
            ):
                raw(50, client)
                ours(50, options.batch, folder, services)
                print(f"{'items':>8} {'raw/s':>8} {'batchq/s':>9} {'ratio':>6}   {options.pool}")
                for items in options.items:
                    pairs = [
                        (raw(items, client), ours(items, options.batch, folder, services))
                        for _ in range(options.runs)
                    ]
                    them = statistics.median(pair[0] for pair in pairs)
                    us = statistics.median(pair[1] for pair in pairs)
                    ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
                    print(f"{items:>8} {them:>8.0f} {us:>9.0f} {ratio:>6.2f}")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
