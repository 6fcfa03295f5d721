"""A 3 x 3 grid on all cores: how busy they are kept, and beside `xargs -P` of single runs.

    python benchmarks/grid.py [busy] [sides] [figures] [--seconds 4] [--terms 4000] [--runs 3]

busy     Nine jobs that burn CPU, unequally long (--seconds on the whole). The share of the cores
         that was at work is read from the kernel: while jobs waited, and from the start of the
         first to the end of the last one, where nobody can be busy who has no job left.
sides    examples/wildcards, its grid of nine settings: one `batchq submit`, and `xargs -P` of one
         Python process a setting with the same code, in turns. A single run has neither the model
         that is loaded once a process nor the cache between jobs; `--shared` gives it the cache.
figures  Expanding 10,000 jobs, and a report over 10,000.

Use a quiet machine: the busy share counts what others do, and they slow the jobs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from batchq.expand import Experiment, Matrix, expand
from batchq.manifest.loader import load_manifest
from batchq.outcome import Measured, Outcome, State
from batchq.planning.planner import iter_items, make_plan
from batchq.progress import RunState
from batchq.records import RunRecord
from batchq.report import gather, write_reports
from batchq.store import Outputs, RunFolder
from batchq.store.layout import batch_path
from batchq.store.lines import to_line

CORES = os.cpu_count() or 1
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "wildcards"
LEAVES, THRESHOLDS = (20, 50, 100), (0.1, 0.2, 0.3)
JOBS = 10_000

BURN = """
import time

def burn(config, params):
    end = time.process_time() + params["seconds"] * (0.7 + 0.075 * config["a"] + 0.05 * config["b"])
    while time.process_time() < end:
        sum(range(10_000))
    return {"score": config["a"]}
"""
BURN_MANIFEST = """
name: burn
task: "burning:burn"
params: {{seconds: {seconds}}}
matrix: {{axes: {{a: [0, 1, 2], b: [0, 1, 2]}}}}
"""
GRID_MANIFEST = """
name: wildcards
task: "wildcards:generate"
setup: "wildcards:load"
params: {{terms: {terms}}}
matrix:
  axes: {{min_leaf_size: {leaves}, semantic_threshold: {thresholds}}}
report: {{metrics: [coherence]}}
"""
SINGLE = """
import json, logging, sys
from pathlib import Path
from types import SimpleNamespace
import wildcards

leaf, threshold, terms, out, shared = sys.argv[1:]

class NoCache:
    def fetch(self, key, make):
        return make()

if shared == "yes":
    from batchq.workplace import DiskCache
    cache = DiskCache(Path(out) / "cache")
else:
    cache = NoCache()
folder = Path(out) / f"leaf{leaf}_thresh{threshold}"
folder.mkdir(parents=True, exist_ok=True)
params = {"terms": int(terms)}
context = SimpleNamespace(state=wildcards.load(params), cache=cache, output=folder,
                          progress=lambda *_: None, log=logging.getLogger(), params=params)
config = {"min_leaf_size": int(leaf), "semantic_threshold": float(threshold)}
(folder / "stats.json").write_text(json.dumps(wildcards.generate(config, params, context)))
"""


@dataclass
class Cores:
    """How busy the cores are, looked at ten times a second."""

    seen: list[tuple[float, float]] = field(default_factory=list)  # (time, busy seconds so far)

    @contextmanager
    def watched(self) -> Iterator[None]:
        done = threading.Event()

        def look() -> None:
            while not done.wait(0.1):
                times = psutil.cpu_times()
                idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "steal", 0.0)
                self.seen.append((time.time(), sum(times) - idle - times.guest))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def share(self, start: float, end: float) -> float:
        within = [one for one in self.seen if start <= one[0] <= end]
        (began, before), (ended, after) = within[0], within[-1]
        return (after - before) / (ended - began) / CORES


def busy(seconds: float) -> None:
    with folder_with(("burning.py", BURN)) as folder:
        write(folder / "m.yaml", BURN_MANIFEST.format(seconds=seconds))
        cores = Cores()
        began = time.time()
        with cores.watched():
            submit(folder)
        ended = time.time()
        outcomes = list(RunFolder.open(str(folder / "outputs/burn/v0")).merged(1))
    starts = [one.started_at for one in outcomes]
    first, last_start, last = min(starts), max(starts), max(one.ended_at for one in outcomes)
    used = sum(one.measured.cpu_s for one in outcomes if one.measured)
    best = used / CORES / (last - first)
    print(f"{len(outcomes)} jobs of {used / len(outcomes):.1f} s CPU on {CORES} cores")
    print(f"  busy while jobs waited         {cores.share(first, last_start):6.1%}  (target 90 %)")
    print(f"  busy from first to last job    {cores.share(first, last):6.1%}  ({best:.1%} by jobs)")
    print(f"  whole command                  {ended - began:6.1f} s, jobs {last - first:.1f} s")


def sides(terms: int, runs: int, *, is_shared: bool) -> None:
    took: dict[str, list[float]] = {"batchq submit": [], f"xargs -P{CORES}": []}
    for number in range(runs):
        for name in took if number % 2 else reversed(took):
            took[name].append(
                by_batchq(terms) if "batchq" in name else by_xargs(terms, is_shared=is_shared)
            )
    middles = {name: statistics.median(times) for name, times in took.items()}
    for name, times in took.items():
        each = ", ".join(f"{one:.1f}" for one in times)
        print(f"  {name:16} {middles[name]:6.1f} s  (median of {each})")
    ours, theirs = middles.values()
    print(f"  batchq takes {ours / theirs:.2f} of it")


def by_batchq(terms: int) -> float:
    with folder_with() as folder:
        shutil.copy(EXAMPLE / "wildcards.py", folder)
        manifest = GRID_MANIFEST.format(terms=terms, leaves=[*LEAVES], thresholds=[*THRESHOLDS])
        write(folder / "m.yaml", manifest)
        began = time.perf_counter()
        submit(folder)
        return time.perf_counter() - began


def by_xargs(terms: int, *, is_shared: bool) -> float:
    with folder_with(("single.py", SINGLE)) as folder:
        shutil.copy(EXAMPLE / "wildcards.py", folder)
        shared = "yes" if is_shared else "no"
        lines = "".join(
            f"{leaf} {one} {terms} out {shared}\n" for leaf in LEAVES for one in THRESHOLDS
        )
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        began = time.perf_counter()
        subprocess.run(
            ["xargs", "-P", str(CORES), "-n", "5", sys.executable, "single.py"],
            input=lines, text=True, cwd=folder, env=env, check=True,
        )  # fmt: skip
        took = time.perf_counter() - began
        assert len([*folder.glob("out/*/stats.json")]) == 9
        return took


def figures() -> None:
    axes = {"a": tuple(range(100)), "b": tuple(range(100))}
    began = time.perf_counter()
    jobs = expand(Experiment(matrix=Matrix(axes, max_jobs=JOBS)))
    print(f"  expanding {len(jobs):,} jobs      {time.perf_counter() - began:6.2f} s  (target 1 s)")
    with folder_with() as folder:
        run = ended_run(folder)
        began = time.perf_counter()
        report = gather(run)
        read = time.perf_counter() - began
        write_reports(run, report, ("csv", "md", "html"))
        took = time.perf_counter() - began
    print(f"  report over {JOBS:,} jobs    {took:6.2f} s  (target 10 s; reading {read:.2f})")


def ended_run(folder: Path) -> RunFolder:
    """A run of 10,000 jobs that ended, as its folder."""
    values = [*range(100)]
    matrix = f"{{axes: {{a: {values}, b: {values}}}, max_jobs: {JOBS}}}"
    write(folder / "m.yaml", f"name: many\ntask: 'm:f'\nmatrix: {matrix}\n")
    plan = make_plan(load_manifest(folder / "m.yaml"))
    run = Outputs("outputs", str(folder)).create_version("many")
    run.write_plan(plan)
    run.write_lock("{}")
    run.freeze_items(1, iter_items(plan, 1))
    size = plan.step(1).pacing.batch_size
    outcomes = [
        Outcome(item.id, item.index, State.OK, {"score": item.data["a"]}, worker="host-1-a",
                started_at=1.0 * item.index, ended_at=item.index + 2.0,
                measured=Measured(2.0, 1.5, 10**8, 100, {"score": item.data["a"] / 7, "n": 1.0}))
        for item in iter_items(plan, 1)
    ]  # fmt: skip
    for number in range(-(-JOBS // size)):
        lines = map(to_line, outcomes[number * size : (number + 1) * size])
        run.files.create(batch_path(1, number), b"".join(lines))
    record = RunRecord(
        "r", "many", "v0", RunState.COMPLETED, "draft", "", "submit", "", run.url,
        "2026-11-21T09:00:00Z", "2026-11-21T10:00:00Z", 3600.0, JOBS,
    )  # fmt: skip
    run.write_metadata(record, plan, {})
    return run


def submit(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "batchq",
        "submit",
        "m.yaml",
        "--wait",
        "--workers",
        str(CORES),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr or done.stdout)


@contextmanager
def folder_with(*files: tuple[str, str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bq") as name:
        for path, text in files:
            write(Path(name) / path, text)
        yield Path(name)


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def main() -> None:
    parts = ("busy", "sides", "figures")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("parts", nargs="*", choices=[*parts, []], default=[])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--terms", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--shared", action="store_true")
    told = parser.parse_args()
    for part in told.parts or parts:
        print(part)
        if part == "busy":
            busy(told.seconds)
        elif part == "sides":
            sides(told.terms, told.runs, is_shared=told.shared)
        else:
            figures()


if __name__ == "__main__":
    main()
