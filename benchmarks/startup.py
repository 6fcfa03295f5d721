"""Time of `batchq --help`, and from the start of `batchq submit` to its first item.

    python benchmarks/startup.py [--runs 7]

The first item is there when the private Redis of the embedded stack counts an outcome: so the time
holds the command line, Redis, the simulator, the coordinator, a worker, and one HTTP call.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import redis

from batchq.embedded.stack import BROKER_FILE, RUNS_FOLDER
from batchq.errors import QueueError
from batchq.ledger import RedisLedger
from batchq.settings import redis_client_url

TARGETS_S = {"batchq --help": 0.2, "first item after submit": 2.0}
DEADLINE_S = 60
MANIFEST = """
name: startup
providers:
  model: {kind: simulator, model: small, simulator: {latency_ms: 0}}
steps:
  - {name: ask, input: {generate: 3}, prompt: "{number}\\nin words", provider: model}
"""


def help_s() -> float:
    began = time.perf_counter()
    subprocess.run([batchq(), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def first_item_s() -> float:
    with tempfile.TemporaryDirectory(prefix="bq") as name:
        folder = Path(name)
        (folder / "manifest.yaml").write_text(MANIFEST)
        with (folder / "log").open("wb") as log:
            began = time.perf_counter()
            submit = subprocess.Popen(
                [batchq(), "submit", "manifest.yaml"], cwd=folder, stdout=log, stderr=log
            )
            try:
                ledger = connect(folder, began, submit)
                while not has_outcome(ledger):
                    check(folder, began, submit)
                taken = time.perf_counter() - began
            finally:
                code = submit.wait(DEADLINE_S)
        if code != 0:
            raise SystemExit((folder / "log").read_text())
    return taken


def connect(folder: Path, began: float, submit: subprocess.Popen[bytes]) -> RedisLedger:
    """Waits for the stack's own Redis, as its folder names it."""
    while True:
        check(folder, began, submit)
        for file in (folder / ".batchq" / RUNS_FOLDER).glob(f"*/{BROKER_FILE}"):
            if url := file.read_text():
                return RedisLedger(
                    redis.Redis.from_url(redis_client_url(url), decode_responses=True)
                )


def has_outcome(ledger: RedisLedger) -> bool:
    try:
        return any(ledger.counters(run, 1).get("ok") for run in ledger.runs())
    except QueueError:  # Redis is not up yet
        return False


def check(folder: Path, began: float, submit: subprocess.Popen[bytes]) -> None:
    """Lets some time pass; ends all if the command has ended or takes for ever."""
    if submit.poll() is not None or time.perf_counter() - began > DEADLINE_S:
        raise SystemExit(f"no item was seen\n{(folder / 'log').read_text()}")
    time.sleep(0.005)


def batchq() -> str:
    return str(Path(sys.executable).with_name("batchq"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs

    for (name, target_s), measure in zip(TARGETS_S.items(), (help_s, first_item_s), strict=True):
        measure()  # byte code and the disk's cache
        times = sorted(measure() for _ in range(runs))
        print(
            f"{name:24} median {statistics.median(times):.2f} s, {times[0]:.2f} to {times[-1]:.2f}"
            f" in {runs} runs; target {target_s:g} s"
        )
    print(f"load average {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores")


if __name__ == "__main__":
    main()
