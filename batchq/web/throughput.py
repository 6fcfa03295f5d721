"""How many items a run did when: batches spread over the time that they took. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from batchq.store.listing import BatchSpan

POINTS = 48


@dataclass(frozen=True, slots=True)
class Throughput:
    """Items that ended in each interval of `every_s` from `start` on."""

    start: float
    every_s: float
    ok: list[float]
    failed: list[float]


def spread(spans: Sequence[BatchSpan], start: float, end: float) -> Throughput:
    """Spreads the items of each batch evenly over its time: when each ended is not indexed."""
    start = min([start, *(one.start for one in spans if one.start)])
    end = max([end, *(one.end for one in spans)])
    every_s = _round(max(1e-3, (end - start) / POINTS))
    number = max(1, math.ceil((end - start) / every_s))
    ok, failed = [0.0] * number, [0.0] * number
    for one in spans:
        first = min(number - 1, max(0, int((one.start - start) / every_s)))
        last = min(number - 1, max(first, int((one.end - start) / every_s)))
        shares = [
            max(
                0.0, min(one.end, start + (at + 1) * every_s) - max(one.start, start + at * every_s)
            )
            for at in range(first, last + 1)
        ]
        whole = sum(shares)
        for at, share in enumerate(shares, first):
            part = share / whole if whole > 0 else 1 / len(shares)
            ok[at] += one.ok * part
            failed[at] += one.failed * part
    return Throughput(start, every_s, ok, failed)


class Counted(Protocol):
    """How many items had ended at a time."""

    @property
    def at(self) -> float:
        """Seconds since the epoch."""
        ...

    @property
    def ok(self) -> int:
        """Those that were ok."""
        ...

    @property
    def failed(self) -> int:
        """Those that had failed."""
        ...


def live_spans(
    spans: Sequence[BatchSpan], looks: Sequence[Counted], start: float
) -> list[BatchSpan]:
    """What a run that goes on has given: by its batches first, by looks since somebody watches.

    What no batch had at the first look is spread over the time since the last one.
    """
    first = looks[0]
    early = [one for one in spans if one.end <= first.at]
    since = min(first.at, max((one.end for one in early), default=start))
    ok, failed = first.ok - sum(one.ok for one in early), first.failed
    failed -= sum(one.failed for one in early)
    found = [*early, BatchSpan(0, since, first.at, max(0, ok), max(0, failed))]
    for one, after in pairwise(looks):
        ok, failed = max(0, after.ok - one.ok), max(0, after.failed - one.failed)
        found.append(BatchSpan(0, one.at, after.at, ok, failed))
    return [one for one in found if one.ok > 0 or one.failed > 0]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that so many do not exceed, of values in order (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _round(seconds: float) -> float:
    """A time that people count in: 1, 2, 5, 10, 15, 30 seconds, minutes, hours."""
    for unit in (1.0, 60.0, 3600.0):
        for step in (1, 2, 5, 10, 15, 30):
            if step * unit >= seconds > 0.5:
                return step * unit
    if seconds <= 0.5:
        return next(one for one in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if one >= seconds)
    return math.ceil(seconds / 86400) * 86400.0
