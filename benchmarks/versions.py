"""Time and memory of the commands that look at versions, on one large pipeline of many.

    python benchmarks/versions.py [--items 100000] [--versions 100] [--runs 3] [--folder DIR]

Versions are written by the project's own store, with the outcomes that a run would have had: v0
and v1 hold all items (2 % failed; v1 differs in 60), each later one is a rerun of five and builds
on the one before; their collated files are left out. Each command is a process of its own, its peak
memory that of the process (ru_maxrss).
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
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from batchq.manifest.loader import load_manifest
from batchq.outcome import Attempt, ItemError, Outcome, State, Summary, Usage
from batchq.plan import Item, Plan
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import make_plan
from batchq.ports import RunInfo
from batchq.progress import RunState
from batchq.runs.life import create_run, open_folder, open_outputs, record_batch
from batchq.runs.rerun import create_rerun
from batchq.services import Services, build_services
from batchq.settings import Settings

NAME = "versions"
REDONE = 5
STARTED = 1_768_900_000.0
MERGES = (10_000, 200_000)
TARGETS_S = {"list": 1, "list --all": 1, "show": 1, "status": 1, "failures": 1.5, "compare": 4}
TEXT = "The respondent says that the path floods each winter and asks for a raised walkway. "
MANIFEST = f"""
name: {NAME}
status: beta
steps:
  - name: classify
    input: items.jsonl
    id_field: id
    task: "versions_tasks:classify"
    output_file: classified.json
    batch_size: 500
    concurrent_batches: 1
"""
TASKS = "def classify(item):\n    return {'label': 'redone', 'text': item['text']}\n"


def write_project(folder: Path, items: int) -> Plan:
    (folder / "manifest.yaml").write_text(MANIFEST)
    (folder / "versions_tasks.py").write_text(TASKS)
    with (folder / "items.jsonl").open("w") as file:
        for number in range(items):
            file.write(f'{{"id": "{name_of(number)}", "text": "{TEXT}"}}\n')
    os.chdir(folder)
    return make_plan(load_manifest("manifest.yaml"))


def name_of(number: int) -> str:
    return f"answer_{number:06d}"


def outcome_of(item: Item, *, is_second: bool = False) -> Outcome:
    """What a model might have made of an item; in the second version 60 items differ."""
    index = item.index
    usage = Usage(1, 310, 85, 412_000)
    is_ok = index % 50 != 7 or (is_second and index < 500)
    error = None if is_ok else ItemError("schema", f"$.label: '{index}' is not one of the themes")
    output = {
        "label": "changed" if is_second and index % 50 == 0 and index < 2500 else "access",
        "confidence": round(0.5 + index % 50 / 100, 2),
        "quote": TEXT * 2,
        "themes": ["flooding", "walking", "safety"],
        "scores": {"relevance": 4, "clarity": 3, "tone": {"angry": False, "hopeful": True}},
    }
    at = STARTED + index / 100 + is_second
    return Outcome(
        item.id, index, State.OK if is_ok else State.FAILED, output if is_ok else None, error,
        attempts=(Attempt(1, at, 1.234, 0.2, error=error, usage=usage, model="small"),),
        usage=usage, started_at=at, ended_at=at + 1.234, worker="host-1",
    )  # fmt: skip


def fill(info: RunInfo, services: Services, *, is_second: bool = False) -> Summary:
    """Writes what a run of this version leaves, but for its collated file."""
    folder, step = open_folder(info.folder), info.plan.steps[0]
    number = 0
    while items := folder.batch(1, number, step.pacing.batch_size):
        outcomes = [outcome_of(item, is_second=is_second) for item in items]
        folder.write_batch(1, number, outcomes, step.output)
        record_batch(info, step, number, outcomes, services)
        number += 1
    return folder.mark_done(1)


def end(info: RunInfo, summary: Summary, services: Services) -> None:
    """Says that a version is complete, as the end of its run does."""
    folder = open_folder(info.folder)
    record = next(one for one in services.catalog.runs(NAME) if one.run == info.run)
    record = replace(record, state=RunState.COMPLETED, duration_s=125.3, summary=summary)
    folder.write_metadata(record, info.plan, {1: summary})
    services.catalog.put_run(record)
    open_outputs(info.plan).point_latest(NAME, info.version)


def build(folder: Path, items: int, versions: int) -> None:
    plan = write_project(folder, items)
    services = build_services(Settings(home=folder / ".batchq"))
    lock = manifest_lock(load_manifest("manifest.yaml"), plan)
    info = None
    for number in range(versions):
        if number < 2:
            info = create_run(plan, lock, services, now=STARTED + number)
        else:
            assert info is not None
            chosen = {1: [Item(name_of(n), n, {"text": TEXT}) for n in redone_in(number, items)]}
            info = create_rerun(info, chosen, services, now=STARTED + number, status="draft")
        end(info, fill(info, services, is_second=number == 1), services)


def redone_in(version: int, items: int) -> list[int]:
    return sorted((version * 1009 + n * 17) % items for n in range(REDONE))


@dataclass(frozen=True)
class Taken:
    """What a command took in some runs: its wall times, shortest first."""

    times: list[float]
    cpu_s: float
    peak_mb: float

    def __str__(self) -> str:
        return (
            f"median {statistics.median(self.times):5.2f} s, {self.times[0]:.2f} to "
            f"{self.times[-1]:.2f}, {self.cpu_s:.2f} s of CPU, peak {self.peak_mb:.0f} MB"
        )


def measure(command: list[str], runs: int) -> Taken:
    """Runs a command; CPU time is that of the quickest run, memory that of the largest."""
    times, cpu, peak = [], [], 0.0
    for _ in range(runs):
        with Path(os.devnull).open("wb") as nothing:
            began = time.perf_counter()
            child = subprocess.Popen(command, stdout=nothing, stderr=subprocess.PIPE)
            assert child.stderr is not None
            said = child.stderr.read()
            _, status, usage = os.wait4(child.pid, 0)
            times.append(time.perf_counter() - began)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in (0, 3):
            raise SystemExit(f"{' '.join(command)}\n{said.decode()}")
        cpu.append(usage.ru_utime + usage.ru_stime)
        peak = max(peak, usage.ru_maxrss / 1024)
    return Taken(sorted(times), min(cpu), peak)


def batchq(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("batchq")), *arguments]


def commands(versions: int) -> Iterator[tuple[str, list[str]]]:
    last = f"v{versions - 1}"
    yield "list", batchq("list", NAME)
    yield "list --all", batchq("list", NAME, "--all")
    yield "show", batchq("show", f"{NAME}@v0")
    yield "show ITEM", batchq("show", f"{NAME}@{last}", name_of(4242))
    yield "status", batchq("status", f"{NAME}@v0")
    yield "failures", batchq("failures", f"{NAME}@v0")
    yield f"failures {last}", batchq("failures", f"{NAME}@{last}")
    yield "compare", batchq("compare", NAME, "v0", "v1")
    yield f"compare v1 {last}", batchq("compare", NAME, "v1", last)


def merge(folder: Path) -> None:
    """Collates v0 anew, in this process, and says how long it took and the peak of its memory."""
    os.chdir(folder)
    found = open_folder(f"outputs/{NAME}/v0")
    before = peak_mb()
    began = time.perf_counter()
    step = found.read_plan().step(1)
    found.collate(1, step.output)
    found.write_errors(1)
    print(f"{time.perf_counter() - began:.1f} s, peak {peak_mb():.0f} MB ({before:.0f} before)")


def peak_mb() -> float:
    """The peak of this process; ru_maxrss would be that of the one that started it, if larger."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def in_folder(given: Path | None, work: Callable[[Path], None]) -> None:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        work(given.absolute())
        return
    with tempfile.TemporaryDirectory(prefix="bq") as name:
        try:
            work(Path(name))
        finally:
            os.chdir("/")


def look(folder: Path, items: int, versions: int, runs: int) -> None:
    if not (folder / "outputs").exists():
        began = time.perf_counter()
        build(folder, items, versions)
        took = time.perf_counter() - began
        print(f"{versions} versions of {items:,} items, written in {took:.0f} s", flush=True)
    os.chdir(folder)
    for name, command in commands(versions):
        target = f"; target {TARGETS_S[name]:g} s" if name in TARGETS_S else ""
        print(f"{name:16} {measure(command, runs)}{target}", flush=True)
    redone = [name_of(number) for number in redone_in(versions, items)]
    taken = measure(batchq("rerun", NAME, *redone, "--wait"), 1)
    print(f"rerun of {REDONE}: {taken} (with what it waited for)", flush=True)
    print(f"load average {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--versions", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="build here, or take what was built here")
    parser.add_argument("--merge", type=Path, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.merge:
        merge(wanted.merge)
        return
    in_folder(wanted.folder, lambda path: look(path, wanted.items, wanted.versions, wanted.runs))
    for items in MERGES:

        def merge_apart(folder: Path, items: int = items) -> None:
            build(folder, items, 1)
            command = [sys.executable, __file__, "--merge", str(folder)]
            print(f"merge of {items:,} items: ", end="", flush=True)
            subprocess.run(command, check=True)

        in_folder(None, merge_apart)


if __name__ == "__main__":
    main()
