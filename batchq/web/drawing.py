"""Turns numbers into the places of marks: progress bars and columns, without a word of HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PARTS = (("ok", "ok"), ("cached", "from cache"), ("failed", "failed"), ("running", "running"))
"""The four colours of a progress bar and their words."""

_LEAST = 0.6  # per cent: what there is can be seen


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar, in per cent of it."""

    kind: str
    word: str
    count: int
    start: float
    width: float


def bar_parts(bar: Mapping[str, int]) -> list[Part]:
    """The parts of a progress bar that there are, from left to right."""
    total = max(1, bar["total"])
    present = [(kind, word, bar[kind]) for kind, word in PARTS if bar[kind]]
    widths = [max(_LEAST, 100 * number / total) for _, _, number in present]
    excess = max(0.0, sum(widths) - 100)
    if excess:  # what small parts were given, the largest one gives
        widths[widths.index(max(widths))] -= excess
    found, start = [], 0.0
    for (kind, word, number), width in zip(present, widths, strict=True):
        found.append(Part(kind, word, number, round(start, 2), round(width, 2)))
        start += width
    return found


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a chart: the lower and the upper part of it, in per cent of the chart."""

    x: float
    width: float
    low: float
    high: float
    first: float
    second: float


@dataclass(frozen=True, slots=True)
class Columns:
    """A chart of columns. `most` is the value at its top."""

    most: float
    columns: Sequence[Column]


def columns(first: Sequence[float], second: Sequence[float] = ()) -> Columns:
    """Draws a series, or two on each other; `first` stands at the bottom."""
    second = second or [0.0] * len(first)
    sums = [one + other for one, other in zip(first, second, strict=True)]
    most = max(sums, default=0.0)
    width = 100 / max(1, len(sums))
    scale = 100 / most if most else 0.0
    return Columns(
        most,
        [
            Column(
                x=round(at * width + width * 0.06, 3),
                width=round(width * 0.88, 3),
                low=round(one * scale, 2),
                high=round(other * scale, 2),
                first=one,
                second=other,
            )
            for at, (one, other) in enumerate(zip(first, second, strict=True))
        ],
    )
