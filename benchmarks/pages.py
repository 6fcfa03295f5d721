"""Time of the pages with many runs, and on a run of many items; and what open pages cost.

    python benchmarks/pages.py [--runs 10000] [--items 1000000] [--open 50]

The catalog is made up: rows are written into it, not run. The run of many items is looked at three
times: while it goes on, with counters in a real Redis, nine tenths done; after it was killed, told
from its folder; and when all of it is done. Of its batches those that a page reads have outcomes in
their record, the others are empty files. No answer is taken twice from what the server remembers
for a second.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import requests
from sqlalchemy import insert

from batchq.embedded.server import start_redis
from batchq.manifest.loader import load_manifest
from batchq.outcome import Attempt, Outcome, State, Summary, Usage
from batchq.plan import encode
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import make_plan
from batchq.ports import RunInfo
from batchq.progress import RunState
from batchq.queue.control import start
from batchq.records import RunRecord, iso
from batchq.runs.life import create_run, open_folder
from batchq.services import Services, build_services
from batchq.settings import Settings
from batchq.store.catalog import run_row
from batchq.store.database import open_engine
from batchq.store.tables import batches, items, runs

BATCH = 500
BEGAN = 1_790_000_000.0
MANIFEST = """
name: big
notes: a made-up run
config: {{output_dir: out, batch_size: {batch}}}
steps:
  - {{name: ask, input: {{generate: {items}}}, task: "m:f"}}
"""
TARGETS_MS = {"runs": 200, "run": 300}


def make_runs(folder: Path, services: Services, number: int) -> None:
    """Writes rows of small runs; those on the first pages have a folder."""
    (folder / "small.yaml").write_text(
        MANIFEST.format(batch=BATCH, items=3).replace("big", "small")
    )
    manifest = load_manifest(folder / "small.yaml")
    plan = make_plan(manifest)
    info = create_run(plan, manifest_lock(manifest, plan), services, now=BEGAN)
    states = itertools.cycle([RunState.COMPLETED] * 6 + [RunState.FAILED, RunState.PAUSED])
    rows = []
    for at in range(number):
        record = RunRecord(
            run=f"made{at:08}", pipeline=f"pipeline_{at % 40}", version=f"v{at // 40}",
            state=next(states), status="draft", notes=f"note {at}", mode="initial",
            base_version="", folder=info.folder, created_at=iso(BEGAN + at), ended_at=iso(BEGAN),
            duration_s=60.0, items=1000, summary=Summary(990, 10, usage=Usage(1000, 5, 5, 10**9)),
        )  # fmt: skip
        rows.append(run_row(record))
    engine = open_engine(services.settings.effective_catalog_url)
    with engine.execution_options(is_write=True).begin() as connection:
        connection.execute(insert(runs), rows)


def make_big(folder: Path, services: Services, number: int) -> RunInfo:
    """Freezes a run of many items and writes rows of what nine tenths of them came to."""
    (folder / "big.yaml").write_text(MANIFEST.format(batch=BATCH, items=number))
    manifest = load_manifest(folder / "big.yaml")
    plan = make_plan(manifest)
    info = create_run(plan, manifest_lock(manifest, plan), services, now=time.time() - 3600)
    done = number * 9 // 10
    engine = open_engine(services.settings.effective_catalog_url)
    began = time.time() - 3500
    with engine.execution_options(is_write=True).begin() as connection:
        for first in range(0, done, 20_000):
            connection.execute(
                insert(items),
                [_item(info.run, at) for at in range(first, min(done, first + 20_000))],
            )
        connection.execute(
            insert(batches), [_batch(info.run, at, began) for at in range(done // BATCH)]
        )
    put_records(info, 0, done // BATCH)
    return info


def put_records(info: RunInfo, first: int, end: int) -> None:
    """Makes the files of batches; the first and the last one have outcomes in them."""
    folder, step = open_folder(info.folder), info.plan.steps[0]
    records = Path(folder.files.full("state/01_batches"))
    records.mkdir(parents=True, exist_ok=True)
    for at in range(first, end):
        if at in (first, end - 1):
            folder.write_batch(1, at, [_outcome(at * BATCH + n) for n in range(BATCH)], step.output)
        else:
            (records / f"{at:06}.jsonl").touch()


def _outcome(index: int) -> Outcome:
    at = time.time()
    tries = (Attempt(1, at - 1, 1.0),)
    return Outcome(
        str(index), index, State.OK, output={"n": index}, started_at=at - 1, ended_at=at,
        attempts=tries, usage=Usage(1, 100, 20, 50_000),
    )  # fmt: skip


def complete(info: RunInfo, services: Services, number: int) -> None:
    """Writes the rest of a run, as if it had come to its end."""
    done, began = number * 9 // 10, time.time() - 400
    engine = open_engine(services.settings.effective_catalog_url)
    with engine.execution_options(is_write=True).begin() as connection:
        connection.execute(insert(items), [_item(info.run, at) for at in range(done, number)])
        rest = range(done // BATCH, number // BATCH)
        connection.execute(insert(batches), [_batch(info.run, at, began) for at in rest])
    put_records(info, done // BATCH, number // BATCH)
    folder = open_folder(info.folder)
    summary = Summary(number * 49 // 50, number // 50, usage=Usage(number, number, number, 10**10))
    folder.files.write("state/01_done.json", encode(summary))
    record = replace(
        services.catalog.runs("big")[0], state=RunState.COMPLETED, summary=summary,
        ended_at=iso(time.time()), duration_s=3600.0,
    )  # fmt: skip
    folder.write_metadata(record, info.plan, {1: summary})
    services.catalog.put_run(record)


def _item(run: str, index: int) -> dict[str, object]:
    failed = index % 50 == 7
    return {
        "run": run, "step": 1, "item_index": index, "batch": index // BATCH,
        "item_id": str(index), "state": "failed" if failed else "ok",
        "kind": "timeout" if failed else "", "error": f"no answer in {index} s" if failed else "",
        "attempts": 1, "input_tokens": 100, "output_tokens": 20, "cost_nusd": 50_000,
        "duration_ms": 200 + index % 977,
    }  # fmt: skip


def _batch(run: str, number: int, began: float) -> dict[str, object]:
    return {
        "run": run, "step": 1, "number": number, "model": "m", "provider": "p", "items": BATCH,
        "ok": BATCH - 10, "failed": 10, "retries": 0, "repaired": 0, "cached": 0, "calls": BATCH,
        "input_tokens": 1, "output_tokens": 1, "cost_nusd": 1, "unpriced_calls": 0,
        "started_at": iso(began + number), "ended_at": iso(began + number + 4),
        "duration_ms": 4000, "created_at": iso(began), "updated_at": iso(began),
    }  # fmt: skip


def go_on(info: RunInfo, services: Services, number: int) -> None:
    """Gives a run its counters in Redis, as its coordinator would."""
    start(info, services)
    done = number * 9 // 10
    total = Summary(done * 49 // 50, done // 50, usage=Usage(done, 100 * done, 20 * done, 10**10))
    services.ledger.start_step(
        info.run, 1, total=number, batches=number // BATCH, max_failures=None, done=total
    )
    services.ledger.set_counters(info.run, 1, {"next": done // BATCH})


def times_ms(url: str, paths: list[str]) -> list[float]:
    """How long each of the pages took."""
    session, found = requests.Session(), []
    for path in paths:
        began = time.perf_counter()
        answer = session.get(url + path, timeout=60)
        found.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200, (path, answer.status_code)
    return found


def open_pages(url: str, path: str, number: int, process: psutil.Process, span_s: float) -> float:
    """The share of a core that a server takes while so many have a page open."""
    ended = threading.Event()

    def watch(delay: float) -> None:
        session, tag = requests.Session(), ""
        ended.wait(delay)
        while not ended.is_set():
            answer = session.get(f"{url}{path}?live=1", headers={"If-None-Match": tag}, timeout=30)
            tag = answer.headers.get("ETag", tag)
            ended.wait(2)

    threads = [threading.Thread(target=watch, args=(2 * at / number,)) for at in range(number)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    before, began = process.cpu_times(), time.perf_counter()
    time.sleep(span_s)
    after, took = process.cpu_times(), time.perf_counter() - began
    ended.set()
    for thread in threads:
        thread.join()
    return (after.user + after.system - before.user - before.system) / took


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--open", type=int, default=50)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--keep", type=Path, help="a folder to make the catalog in, and to leave")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        measure(chosen.keep or Path(made), chosen)


def measure(folder: Path, chosen: argparse.Namespace) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    local = Settings(home=folder / ".batchq")
    server = start_redis(folder / "redis", local)
    settings = local.model_copy(update={"broker_url": server.url})
    services = build_services(settings)
    began = time.perf_counter()
    make_runs(folder, services, chosen.runs)
    info = make_big(folder, services, chosen.items)
    go_on(info, services, chosen.items)
    services.catalog.put_run(replace(services.catalog.runs("big")[0], items=chosen.items))
    print(f"made up in {time.perf_counter() - began:.0f} s")
    env = {"BATCHQ_HOME": str(local.home), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    with web(folder, {**env, "BATCHQ_BROKER_URL": server.url}) as (url, process):
        report("goes on", url, process, {**list_cases(chosen), **run_cases(chosen, 9)})
        share = open_pages(url, "/runs/big@v0", chosen.open, process, 6.0)
        print(f"{chosen.open} open pages of one run that goes on: {share:.0%} of a core")
    server.stop()
    with web(folder, env) as (url, process):
        report("was killed", url, process, {"run": run_cases(chosen, 9)["run"]})
        complete(info, services, chosen.items)
        report("is complete", url, process, run_cases(chosen, 10))


@contextmanager
def web(folder: Path, env: dict[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    """The pages, and their process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "batchq", "web", "--port", "0"],
        env=env, cwd=folder, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert " at http" in line, line + process.stderr.read()
        url = line.split(" at ")[1].strip().rstrip("/")
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.communicate()


def list_cases(chosen: argparse.Namespace) -> dict[str, list[str]]:
    turns = chosen.turns
    return {
        "runs, each page for the first time": [f"/runs?page={at}" for at in range(2, turns + 2)],
        "runs, filtered by text": [f"/runs?text=note {at}" for at in range(turns)],
    }


def run_cases(chosen: argparse.Namespace, tenths: int) -> dict[str, list[str]]:
    turns, run = chosen.turns, "/runs/big@v0"
    last = chosen.items * tenths // 10 - 150
    step = max(1, (last - 100) // turns)
    error = f"{run}/items?state=failed&text="
    return {
        "run": [f"{run}?n={at}" for at in range(turns)],
        "items, pages": [f"{run}/items?after=1.{at * step}" for at in range(turns)],
        "items, the last page": [f"{run}/items?after=1.{last + at}" for at in range(turns)],
        "items that failed": [f"{run}/items?state=failed&after=1.{at * 9}" for at in range(turns)],
        "items, 200,000 searched for an id": [f"{run}/items?text={last + at}" for at in range(3)],
        "items, by text of an error": [f"{error}{last + at} s" for at in range(3)],
        "item, one of the first": [f"{run}/item?id={at}" for at in range(1, 4)],
        "item, one of the last": [f"{run}/item?id={last + at}" for at in range(3)],
    }


def report(state: str, url: str, process: psutil.Process, cases: dict[str, list[str]]) -> None:
    """Measures pages while the large run is in a state: time, and the server's CPU time."""
    told = {}
    print(f"-- a run that {state}")
    for name, paths in cases.items():
        found, worked = [], []
        for path in paths:
            before = process.cpu_times()
            found += times_ms(url, [path])
            after = process.cpu_times()
            worked.append(1000 * (after.user + after.system - before.user - before.system))
            if name == "run":
                time.sleep(1.5)  # what was read is remembered for a second
        middle, cpu = statistics.median(found), statistics.median(worked)
        told[name] = [round(middle, 1), round(cpu, 1)]
        most = f"{min(found):.0f} to {max(found):.0f}"
        print(f"{name:36} {middle:6.0f} ms median, {most}; {cpu:.0f} ms of CPU", flush=True)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
