"""How much of a provider's limits batchq uses, and how many calls are refused, against a simulator.

    python benchmarks/limits.py [rpm] [tpm] [halved] [adaptive] [fair] [peers] [--json FILE]

The server enforces strictly: a bucket of one second's worth, or a window, and 429 for what is
beyond. Each line has the figures, the target, and whether it was reached. `peers` needs
`make bench-setup` once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fleet import Fleet, Seen, Server, fleets, server

from batchq.errors import BatchqError

RPM = 1200
TPM = 660_000
LATENCY_MS = 200
FLEETS = ((1, 16), (4, 8), (16, 4))
"""Processes, and threads of each."""
TELLING = {
    "all": "limits are told by headers",
    "retry": "only retry-after is told",
    "nothing": "nothing is told",
}


@dataclass(frozen=True)
class Row:
    """One measurement, against its target."""

    case: str
    what: str
    figures: str
    target: str = ""
    is_reached: bool | None = None

    def __str__(self) -> str:
        verdict = {True: "reached", False: "NOT REACHED", None: ""}[self.is_reached]
        return f"{self.case:9} {self.what:44} {self.figures:52} {self.target:34} {verdict}"


def at_once(case: Callable[..., Row], parts: Sequence[tuple[Any, ...]]) -> Iterator[Row]:
    """Measures the parts of a case side by side, each on a server and a Redis of its own."""
    with ThreadPoolExecutor(len(parts)) as pool:
        yield from pool.map(case, *zip(*parts, strict=True))


def rpm() -> Iterator[Row]:
    """600 requests at 1,200 rpm, with 1, 4 and 16 processes that start at different times."""
    bucket = {"rpm": RPM, "burst_s": 1}
    told = Fleet("{rpm: 1200}", items=600, apart_s=6)
    parts: list[tuple[str, Fleet, dict[str, Any]]] = [
        (f"{count} worker processes", replace(told, processes=count, threads=threads), bucket)
        for count, threads in FLEETS
    ]
    window = {"rpm": RPM, "burst_s": 10, "enforcement": "window"}
    per_10_s = "{rates: [{requests: 200, per: 10s}]}"
    four = replace(told, limits=per_10_s, processes=4, threads=8)
    parts.append(("4 worker processes, sliding window of 10 s", four, window))
    return at_once(_use, parts)


def tpm() -> Iterator[Row]:
    """600 requests of 100 to 1,000 tokens at 660,000 tpm, processes as for rpm."""
    told = Fleet("{tpm: 660k}", items=600, apart_s=6, tokens=(100, 1000))
    parts = [
        (
            f"100 to 1,000 tokens, {count} worker processes",
            replace(told, processes=count, threads=threads),
            {"tpm": TPM, "burst_s": 1},
        )
        for count, threads in FLEETS
    ]
    return at_once(_use, parts)


def _use(what: str, fleet: Fleet, limit: dict[str, Any]) -> Row:
    with server(latency_ms=LATENCY_MS, **limit) as one:
        with fleets(one.url, fleet):
            pass
        seen, _ = one.seen()
    unit, per_minute = ("tokens", TPM) if "tpm" in limit else ("requests", RPM)
    share = seen.share_of(per_minute, unit)
    done = len(seen.admitted)
    figures = f"{share:.1%} of the rate, {seen.refused} 429s, {done} done"
    is_reached = share >= 0.98 and not seen.refused and done == fleet.items
    case = "tpm" if unit == "tokens" else "rpm"
    return Row(case, what, figures, ">= 98 %, no 429", is_reached)


def halved() -> Iterator[Row]:
    """The server's limit falls from 1,200 to 600 rpm while 4 processes use all of it."""
    return at_once(_halve, [("all",), ("retry",), ("nothing",)])


def _halve(tells: str) -> Row:
    with server(latency_ms=LATENCY_MS, rpm=RPM, burst_s=1, tells=tells) as one:
        with fleets(one.url, Fleet("{rpm: 1200}", 4, 8, seconds=48)):
            changed_at = _change_after(one, 12, rpm=RPM / 2)
        seen, first_at = one.seen()
    changed_s = changed_at - first_at
    after = seen.part(changed_s, changed_s + 33)
    back_s = _back_s(after, changed_s, RPM / 2)
    came = f"{back_s:.0f} s" if back_s is not None else "never"
    late = seen.part(changed_s + 20, changed_s + 33)
    figures = f"{after.refused} 429s, back after {came}, later {late.share_of(RPM / 2):.1%}"
    is_reached = after.refused < 10 and back_s is not None and back_s <= 20
    return Row("halved", TELLING[tells], figures, "< 10 429s, 95 % within 20 s", is_reached)


def _change_after(one: Server, seconds: float, **options: float) -> float:
    """Changes the server when the first call is so long ago."""
    while not one.seen()[0].calls:
        time.sleep(0.1)
    time.sleep(seconds)
    return one.change(**options)


def _back_s(after: Seen, changed_s: float, per_minute: float) -> float | None:
    """How long after the change ten seconds begin that use 95 % of the new limit."""
    needed = 0.95 * per_minute / 6
    for tenth in range(230):
        start_s = changed_s + tenth / 10
        if len(after.part(start_s, start_s + 10).admitted) >= needed:
            return tenth / 10
    return None


def adaptive() -> Iterator[Row]:
    """No limit is given; the server has one of 1,200 rpm and does not tell it."""
    return at_once(_adapt, [("retry",), ("nothing",)])


def _adapt(tells: str) -> Row:
    with server(latency_ms=LATENCY_MS, rpm=RPM, burst_s=1, tells=tells) as one:
        with fleets(one.url, Fleet("{adaptive: true}", 4, 16, seconds=58)):
            pass
        seen, _ = one.seen()
    steady = seen.part(28, 57)
    refused = seen.refused / max(1, len(seen.calls))
    share = len(steady.admitted) / 29 * 60 / RPM
    figures = f"{share:.1%} of the rate after 28 s, {refused:.1%} of calls 429"
    is_reached = share >= 0.85 and refused < 0.02
    return Row("adaptive", TELLING[tells], figures, ">= 85 %, 429s < 2 %", is_reached)


def fair() -> Iterator[Row]:
    """Two runs on one provider; one has three times the slots and came first."""
    return at_once(_share, [("rpm", RPM), ("concurrency", 4)])


def _share(limit: str, amount: int) -> Row:
    limits = f"{{{limit}: {amount}}}"
    large = Fleet(limits, 3, 8, seconds=28, model="large")
    small = Fleet(limits, 1, 8, seconds=28, model="small", start_s=4)
    with server(latency_ms=LATENCY_MS, burst_s=1, **{limit: amount}) as one:
        with fleets(one.url, large, small):
            pass
        seen, _ = one.seen()
    both = seen.part(7, 27)
    share = len(both.part(0, 60, "small").admitted) / max(1, len(both.admitted))
    figures = f"{1 - share:.1%} and {share:.1%}, {seen.refused} 429s"
    what = f"24 and 8 slots, {limit} {amount:,}"
    return Row("fair", what, figures, "45 to 55 % each", 0.45 <= share <= 0.55)


def peers() -> Iterator[Row]:
    """The same calls through batchq and through other clients, each told the limit."""
    import peers as others

    yield from (Row("peers", *row) for row in others.compare(RPM))


CASES: dict[str, Callable[[], Iterator[Row]]] = {
    case.__name__: case for case in (rpm, tpm, halved, adaptive, fair, peers)
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    given = parser.parse_args()
    if unknown := [name for name in given.cases if name not in CASES]:
        parser.error(f"no case {unknown[0]}; there are {', '.join(CASES)}")
    rows = []
    for name in given.cases or CASES:
        try:
            for row in CASES[name]():
                print(row, flush=True)
                rows.append(row)
        except BatchqError as error:
            rows.append(Row(name, "cannot be run", str(error), is_reached=False))
            print(rows[-1], flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return int(any(row.is_reached is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
