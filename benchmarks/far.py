"""A long run of items that do nothing, or fail, or wait: what it costs, and if it stays so.

    far.py [--items 100000] [--batch 250] [--pool prefork] [--slots 2]
           [--fails]          every tenth item fails, and one takes 100 times as long as the rest
           [--kill 0.6]       ends worker and coordinator by SIGKILL there, and starts others
           [--cancel 0.5]     cancels the run there

For each tenth of the items: items/s, CPU of each kind of process by item in us, the peak of Redis
and the memory of the coordinator. On a busy machine the CPU tells more than the rate.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from batchq.embedded.server import start_redis
from batchq.manifest.loader import load_manifest
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import make_plan
from batchq.ports import RunInfo
from batchq.progress import RunState
from batchq.queue import control
from batchq.runs.life import create_run, open_folder
from batchq.services import Services, build_services
from batchq.settings import Settings

MANIFEST = """
name: far
config: {{output_dir: out}}
steps:
  - name: noop
    input: {{generate: {items}}}
    task: far_task:{task}
    batch_size: {batch}
    concurrent_batches: 4
    retry: {{max_retries: 0}}
"""
TASKS = """
import time

def noop(item):
    return item

def fails(item):
    if item["number"] == {slow}:
        time.sleep(1)
    if item["number"] % 10 == 0:
        raise ValueError("every tenth")
    return item
"""
CELERY = (sys.executable, "-m", "celery", "-A", "batchq", "worker", "-l", "error")
QUIET = ("--without-gossip", "--without-mingle")


class Cluster:
    """A worker and a coordinator, and what they took so far."""

    def __init__(self, folder: Path, url: str, pool: str, slots: str) -> None:
        self._folder = folder
        self._env = {
            **os.environ,
            "BATCHQ_BROKER_URL": url,
            "BATCHQ_HOME": str(folder / ".batchq"),
            "BATCHQ_TASKS": '["far_task"]',
            "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        }
        self._argvs = {
            "worker": [*CELERY, *QUIET, "-P", pool, "-c", slots],
            "coordinator": [*CELERY, *QUIET, "-Q", "batchq.control", "-P", "threads", "-c", "2"],
        }
        self.start()

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self.processes = {
                name: psutil.Popen(
                    argv,
                    env=self._env,
                    cwd=self._folder,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                for name, argv in self._argvs.items()
            }

    def end(self, number: signal.Signals) -> None:
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)

    def cpu(self) -> dict[str, float]:
        worker, coordinator = self.processes["worker"], self.processes["coordinator"]
        slots = worker.children(recursive=True)
        return {
            "worker": _cpu([worker]),
            "its slots": _cpu(slots),
            "coordinator": _cpu([coordinator]),
        }


def _cpu(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


@contextmanager
def stack(options: argparse.Namespace) -> Iterator[tuple[Path, Services, Cluster]]:
    with tempfile.TemporaryDirectory(prefix="bqfar") as name:
        folder = Path(name)
        (folder / "far_task.py").write_text(TASKS.format(slow=options.items // 3))
        server = start_redis(folder / "redis", Settings())
        services = build_services(Settings(broker_url=server.url, home=folder / ".batchq"))
        cluster = Cluster(folder, server.url, options.pool, options.slots)
        try:
            while len(services.ledger.alive()) < 2:
                time.sleep(0.1)
            yield folder, services, cluster
        finally:
            cluster.end(signal.SIGTERM)
            server.stop()


def submit(options: argparse.Namespace, folder: Path, services: Services) -> RunInfo:
    path = folder / "m.yaml"
    task = "fails" if options.fails else "noop"
    path.write_text(MANIFEST.format(items=options.items, batch=options.batch, task=task))
    manifest = load_manifest(path)
    plan = make_plan(manifest)
    info = create_run(plan, manifest_lock(manifest, plan), services, now=time.time())
    control.start(info, services)
    return info


def ended(info: RunInfo, services: Services) -> int:
    counters = services.ledger.counters(info.run, 1)
    return counters.get("ok", 0) + counters.get("failed", 0)


def strike(info: RunInfo, services: Services, cluster: Cluster) -> None:
    """Kills all processes, starts others, and waits until the run goes on."""
    cluster.end(signal.SIGKILL)
    before, began = ended(info, services), time.monotonic()
    cluster.start()
    while ended(info, services) <= before:
        time.sleep(0.05)
    print(f"killed at {before:,}: it goes on after {time.monotonic() - began:.1f} s", flush=True)


def follow(
    options: argparse.Namespace, info: RunInfo, services: Services, cluster: Cluster
) -> None:
    tenth, tenths = options.items // 10, 0
    at, cpu, cancelled_at = time.monotonic(), cluster.cpu(), 0.0
    kill_at, cancel_at = options.kill * options.items, options.cancel * options.items
    print(f"{'items':>9} {'items/s':>8}  us of CPU an item, MB of Redis and of the coordinator")
    while info.run in services.ledger.runs():
        count = ended(info, services)
        if count >= (tenths + 1) * tenth:
            tenths += 1
            now, used = time.monotonic(), cluster.cpu()
            told = {name: round((used[name] - cpu.get(name, 0.0)) / tenth * 1e6) for name in used}
            peak = int(services.redis.info("memory")["used_memory_peak"]) / 1e6
            memory = cluster.processes["coordinator"].memory_info().rss / 1e6
            print(
                f"{count:>9,} {tenth / (now - at):>8.0f}  "
                + ", ".join(f"{name} {value}" for name, value in told.items())
                + f"; {peak:.1f}, {memory:.0f}",
                flush=True,
            )
            at, cpu = now, used
        if kill_at and count >= kill_at:
            kill_at = 0
            strike(info, services, cluster)
            cpu = {}
        if cancel_at and count >= cancel_at and not cancelled_at:
            cancelled_at = time.monotonic()
            control.stop(info.run, RunState.CANCELLED, "the benchmark", services)
        time.sleep(0.05)
    if cancelled_at:
        print(f"cancelled: over after {time.monotonic() - cancelled_at:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--pool", default="prefork")
    parser.add_argument("--slots", default="2")
    parser.add_argument("--fails", action="store_true")
    parser.add_argument("--kill", type=float, default=0.0)
    parser.add_argument("--cancel", type=float, default=0.0)
    options = parser.parse_args()
    with stack(options) as (folder, services, cluster):
        began = time.monotonic()
        info = submit(options, folder, services)
        print(f"submitted in {time.monotonic() - began:.1f} s")
        follow(options, info, services, cluster)
        took = time.monotonic() - began
        run = open_folder(info.folder)
        counts = run.summary(1)
        files = sum(1 for _ in run.files.walk())
        print(f"{services.ledger.state(info.run)}: {counts.ok:,} ok, {counts.failed:,} failed, "
              f"{counts.total / took:.0f} items/s from submit to end, {files:,} files")  # fmt: skip


if __name__ == "__main__":
    main()
