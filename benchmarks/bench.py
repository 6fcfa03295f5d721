"""batchq beside its peers, in turns on one Redis: prints ratios, and writes docs/benchmarks.md.

    scripts/bench [CASE ...] [--quick] [--turns N] [--sides NAME ...] [--list]

Without cases it measures all but those that have to be asked for. `--quick` measures fewer items,
once, and writes nothing. Peers are installed by `make bench-setup`; one that is not there is left
out. Every side of a case has the same Redis, slots and items, and its workers are up before it is
measured; the sides take turns, and a ratio is that of two sides within one turn.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import table
from cases import CASES, Case
from turns import Idle, SlowServer, Turn, measure, started


def run_case(case: Case) -> tuple[list[Turn], dict[str, str]]:
    """All turns of a case, and the versions of what took part."""
    here = [side for side in case.sides if side.is_here]
    for side in case.sides:
        if side not in here:
            print(f"  {side.name} is not installed: run `make bench-setup`")
    groups = [[side] for side in here] if case.fill else [here]
    turns: list[Turn] = []
    versions: dict[str, str] = {}
    for group in groups:
        slow = SlowServer(case.latency_ms) if case.is_http else None
        try:
            with (
                tempfile.TemporaryDirectory(prefix="bench") as name,
                started(group, case.kind, case.slots, Path(name)) as (server, running),
            ):
                job = replace(case.job, url=slow.url if slow else "")
                for one in running:
                    versions.update(one.versions)
                idle = Idle.of(server)
                for number in range(case.turns):
                    # Each begins once, so that none has the quiet moments.
                    first = number % len(running)
                    for one in [*running[first:], *running[:first]]:
                        if case.fill:
                            one.do(replace(job, items=case.fill, waits=False, deadline_s=900))
                        turns.append(measure(one, job, server, idle, slow))
                        _tell(turns[-1])
        finally:
            if slow:
                slow.stop()
    return turns, versions


def _tell(turn: Turn) -> None:
    late = "  LATE" if turn.is_late else ""
    steady = f"  steady {turn.steady_per_s:5.0f}/s of {turn.most_open}" if turn.most_open else ""
    print(
        f"  {turn.side:24} {turn.per_s:8.1f}/s {turn.seconds:8.2f} s "
        f"{turn.cpu_s / turn.items * 1000:7.2f} ms CPU {turn.commands / turn.items:6.1f} commands "
        f"{turn.memory_mb:6.0f} MB  others {turn.others:.1f}{steady}{late}",
        flush=True,
    )


def machine() -> str:
    """The machine in a few words."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.machine()
    return f"{os.cpu_count()} cores of {name}, Python {platform.python_version()}"


def chosen(names: Sequence[str], given: argparse.Namespace) -> Iterator[Case]:
    """The cases that are wanted, as large as they are wanted."""
    for case in CASES:
        if case.name not in names and (names or case.is_asked_for):
            continue
        if given.sides:
            wanted = tuple(side for side in case.sides if side.name in given.sides)
            case = replace(case, sides=wanted)
        if given.quick:
            runs = max(1, case.job.runs // 10)
            job = replace(case.job, items=case.quick, runs=runs)
            case = replace(case, job=job, turns=1, fill=case.fill // 20)
        if given.turns:
            case = replace(case, turns=given.turns)
        yield case


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--quick", action="store_true", help="fewer items, once; nothing written")
    parser.add_argument("--turns", type=int, help="of every side")
    parser.add_argument("--sides", nargs="+", metavar="NAME", help="only these; nothing written")
    parser.add_argument("--list", action="store_true", help="list the cases")
    given = parser.parse_args()
    if given.list:
        for case in CASES:
            print(f"{case.name:10} {case.title}: {', '.join(side.name for side in case.sides)}")
        return
    known = {case.name for case in CASES}
    if unknown := [name for name in given.cases if name not in known]:
        parser.error(f"no case {unknown[0]}; there are {', '.join(sorted(known))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with all that was started
    for case in chosen(given.cases, given):
        print(f"{case.name}: {case.title}", flush=True)
        turns, versions = run_case(case)
        rows = table.summary(turns)
        about: dict[str, Any] = {
            "date": f"{datetime.now(UTC):%d %B %Y}".lstrip("0"),
            "machine": machine(),
            "versions": versions,
            "rows": rows,
        }
        print(table.section(case, about), flush=True)
        if not (given.quick or given.sides):
            table.keep(case.name, about)
            table.write_page()
    print(table.claims(table.read()))


if __name__ == "__main__":
    sys.exit(main())
