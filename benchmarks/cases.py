"""What is measured: the cases, their sides, and what they should come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sides.driving import Job
from turns import Side

OURS = Side("batchq", "batchq_side.py")
CELERY = Side("Celery chord", "celery_side.py", "celery")
CELERY_LATE = Side("Celery chord, late acks", "celery_side.py", "celery", (("SIDE_LATE", "1"),))
DRAMATIQ = Side("dramatiq group", "dramatiq_side.py", "dramatiq")
TASKIQ = Side("taskiq + counter", "taskiq_side.py", "taskiq")
RQ = Side("RQ depends_on", "rq_side.py", "rq")
ASYNCIO = Side("asyncio by hand", "asyncio_side.py", "cookbook")
COOKBOOK = Side("cookbook script", "asyncio_side.py", "cookbook", (("SIDE_COOKBOOK", "1"),))
CELERY_THREADS = Side("Celery threads", "celery_side.py", "celery")
GEVENT = Side("batchq, gevent", "batchq_side.py", env=(("SIDE_POOL", "gevent"),))

LATENCY_MS = 200
SLOW_MS = 5_000
BURN_MS = 50
CORES = 2
Results = Mapping[str, Mapping[str, Any]]
"""By case, and by side: the figures of table.py's `Row`."""


@dataclass(frozen=True)
class Case:
    """One job for several sides. `quick` is the number of items of a first look."""

    name: str
    title: str
    job: Job
    sides: tuple[Side, ...]
    kind: str = "cpu"
    slots: int = CORES
    turns: int = 3
    quick: int = 0
    fill: int = 0  # so many items are in the queue before it
    latency_ms: int = LATENCY_MS  # of a call
    is_asked_for: bool = False  # only when it is named

    @property
    def is_http(self) -> bool:
        return self.job.task == "post"


QUEUES = (OURS, CELERY, DRAMATIQ, TASKIQ)
CLIENTS = (OURS, GEVENT, ASYNCIO, COOKBOOK, CELERY_THREADS, TASKIQ)
CASES = (
    Case(
        "noop-1k",
        "1,000 items that do nothing, out and in again",
        Job("noop", 1_000),
        (*QUEUES[:2], CELERY_LATE, *QUEUES[2:], RQ),
        turns=5,
        quick=300,
    ),
    Case("noop-10k", "10,000 of them", Job("noop", 10_000), (*QUEUES, RQ), quick=2_000),
    Case(
        "noop-100k",
        "100,000 of them",
        Job("noop", 100_000, deadline_s=1800),
        QUEUES,
        turns=1,
        quick=5_000,
    ),
    Case(
        "noop-1m",
        "1,000,000 of them",
        Job("noop", 1_000_000, deadline_s=7200),
        (OURS,),
        turns=1,
        quick=10_000,
        is_asked_for=True,
    ),
    Case(
        "http-200",
        f"Calls of {LATENCY_MS} ms, 200 at a time",
        Job("post", 6_000),
        CLIENTS,
        kind="io",
        slots=200,
        quick=1_500,
    ),
    Case(
        "http-1000",
        f"Calls of {LATENCY_MS} ms, 1,000 at a time",
        Job("post", 20_000),
        CLIENTS,
        kind="io",
        slots=1_000,
        turns=2,
        quick=4_000,
    ),
    Case(
        "http-slow",
        f"Calls of {SLOW_MS / 1000:g} s, 1,000 at a time",
        Job("post", 5_000),
        tuple(side for side in CLIENTS if side is not COOKBOOK),
        kind="io",
        slots=1_000,
        turns=1,
        quick=1_000,
        latency_ms=SLOW_MS,
    ),
    Case(
        "cpu", f"Items of {BURN_MS} ms of CPU on {CORES} cores", Job("burn", 400), QUEUES, quick=100
    ),
    Case("size-1k", "2,000 items of 1 KB", Job("size", 2_000, size=1_000), QUEUES, quick=300),
    Case("size-100k", "500 items of 100 KB", Job("size", 500, size=100_000), QUEUES, quick=60),
    Case("runs-50", "50 runs of 100 items, at once", Job("noop", 100, runs=50), QUEUES, quick=20),
    Case(
        "backlog",
        "The first item of a run while 100,000 items of another wait",
        Job("noop", 1, deadline_s=120),
        QUEUES,
        turns=1,
        fill=100_000,
        quick=1,
    ),
)


@dataclass(frozen=True)
class Claim:
    """What should hold: `judge` says with a figure whether it does, or None where it is unknown."""

    text: str
    judge: Callable[[Results], tuple[str, bool] | None]


def _ratio(case: str, side: Side, least: float) -> Callable[[Results], tuple[str, bool] | None]:
    def judge(results: Results) -> tuple[str, bool] | None:
        row = results.get(case, {}).get(side.name)
        if row is None or row["ratio"] is None:
            return None
        return f"{row['ratio']:.2f}", row["ratio"] >= least

    return judge


def _flat(cases: tuple[str, ...]) -> Callable[[Results], tuple[str, bool] | None]:
    def judge(results: Results) -> tuple[str, bool] | None:
        rates = [results[one][OURS.name]["per_s"] for one in cases if one in results]
        if len(rates) < len(cases):
            return None
        return " to ".join(f"{rate:.0f}/s" for rate in rates), rates[-1] >= 0.85 * rates[0]

    return judge


def _in_flight(
    case: str, slots: int, latency_ms: int = LATENCY_MS
) -> Callable[[Results], tuple[str, bool] | None]:
    def judge(results: Results) -> tuple[str, bool] | None:
        row = results.get(case, {}).get(OURS.name)
        if row is None:
            return None
        share = row["steady_per_s"] / (slots * 1000 / latency_ms)
        cores = row["cores"]
        return f"{share:.0%} of slots / latency, {cores:.2f} cores", share >= 0.9 or cores >= 0.95

    return judge


def _cores(results: Results) -> tuple[str, bool] | None:
    row = results.get("cpu", {}).get(OURS.name)
    if row is None:
        return None
    share = row["per_s"] * BURN_MS / 1000 / CORES
    return f"{share:.1%}", share >= 0.95


def _cpu_against(case: str, side: Side) -> Callable[[Results], tuple[str, bool] | None]:
    def judge(results: Results) -> tuple[str, bool] | None:
        ours, theirs = (results.get(case, {}).get(one.name) for one in (OURS, side))
        if ours is None or theirs is None:
            return None
        figures = f"{ours['cpu_ms']:.2f} and {theirs['cpu_ms']:.2f} ms of CPU"
        return figures, ours["cpu_ms"] <= theirs["cpu_ms"]

    return judge


CLAIMS = (
    Claim("no-op items at 10k: 3 times a raw Celery chord", _ratio("noop-10k", CELERY, 3.0)),
    Claim("no-op items at 10k: ahead of taskiq", _ratio("noop-10k", TASKIQ, 1.0)),
    Claim("flat within 15 % from 10k to 100k", _flat(("noop-10k", "noop-100k"))),
    Claim("flat within 15 % from 10k to 1M", _flat(("noop-10k", "noop-1m"))),
    Claim(
        "200 slots: 90 % of slots / latency, until one core is full", _in_flight("http-200", 200)
    ),
    Claim("1,000 slots: the same", _in_flight("http-1000", 1_000)),
    Claim("1,000 slots, calls of 5 s: the same", _in_flight("http-slow", 1_000, SLOW_MS)),
    Claim(
        "1,000 slots: no more CPU a call than the cookbook's script",
        _cpu_against("http-1000", COOKBOOK),
    ),
    Claim("CPU items: 95 % of two cores", _cores),
)
