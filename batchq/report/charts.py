"""Turns numbers into the places of marks: what the page draws, without a word of HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from batchq.outcome import Json
from batchq.report.tables import Effect, Heatmap, Report, setting_text, values_of
from batchq.report.texts import number_text

BARS = 24
MOST_LINES = 500
WIDTH, HEIGHT, EDGE = 720.0, 260.0, 34.0


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a histogram: its height as a share of the highest, and what it stands for."""

    share: float
    count: int
    low: float
    high: float


def histogram(values: Sequence[float], most: float = math.inf) -> list[Bar]:
    """Counts values in intervals of one width: few for few values.

    Those beyond `most` are in the last interval: a long tail would press all others into one.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return []
    low, high = min(known), min(max(known), most)
    if low == high:
        return [Bar(1.0, len(known), low, high)]
    bars = min(BARS, max(5, math.ceil(2 * math.sqrt(len(known)))))
    width = (high - low) / bars
    if all(value == int(value) for value in known):  # else some bars would have a number less
        width = math.ceil((high - low + 1) / bars)
        bars = math.ceil((high - low + 1) / width)
    counts = [0] * bars
    for value in known:
        counts[min(bars - 1, int((value - low) / width))] += 1
    most_of = max(counts)
    return [
        Bar(count / most_of, count, low + at * width, low + (at + 1) * width)
        for at, count in enumerate(counts)
    ]


@dataclass(frozen=True, slots=True)
class Flow:
    """What got done over time: a bar an interval, and the highest and the mean rate a minute."""

    bars: Sequence[Bar]
    highest: float
    mean: float
    span_s: float


FLOW_BARS = 60


def flow(amounts: Sequence[tuple[float, float]]) -> Flow | None:
    """Adds amounts up by the moment they came; None if they came all at once."""
    moments = [at for at, _ in amounts if at]
    if not moments or min(moments) == max(moments):
        return None
    low, span = min(moments), max(moments) - min(moments)
    number = min(FLOW_BARS, max(12, len(amounts) // 2))
    sums = [0.0] * number
    for at, amount in amounts:
        if at:
            sums[min(number - 1, int((at - low) / span * number))] += amount
    most, width = max(sums), span / number
    bars = [
        Bar(one / most if most else 0.0, round(one), at * width, (at + 1) * width)
        for at, one in enumerate(sums)
    ]
    return Flow(bars, most / width * 60, sum(sums) / span * 60, span)


@dataclass(frozen=True, slots=True)
class Span:
    """A value of an axis: the range of the metric and its mean, in per cent of the chart."""

    label: str
    count: int
    start: float
    end: float
    mean: float
    text: str
    is_best: bool


def spans_of(effect: Effect, report: Report) -> list[Span]:
    """Places the values of an axis on one scale."""
    low = min(level.low for level in effect.levels)
    width = max(level.high for level in effect.levels) - low or 1.0
    pick = min if report.goal == "min" else max
    best = pick(level.mean for level in effect.levels)
    return [
        Span(
            setting_text(level.value),
            level.count,
            100 * (level.low - low) / width,
            100 * (level.high - low) / width,
            100 * (level.mean - low) / width,
            number_text(level.mean),
            level.mean == best,
        )
        for level in effect.levels
    ]


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a heatmap: its value, how good it is from 0 to 1, and whether it is the best."""

    text: str
    share: float
    is_best: bool


def cells_of(heatmap: Heatmap, report: Report) -> list[tuple[str, list[Cell | None]]]:
    """The rows of a heatmap, with the name of each."""
    low, high = heatmap.bounds
    best = low if report.goal == "min" else high

    def cell(value: float | None) -> Cell | None:
        if value is None:
            return None
        share = (value - low) / (high - low) if high > low else 1.0
        share = 1 - share if report.goal == "min" and high > low else share
        return Cell(number_text(value), round(share, 3), value == best)

    return [
        (setting_text(name), [cell(value) for value in row])
        for name, row in zip(heatmap.row_values, heatmap.cells, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Scale:
    """One upright of parallel coordinates, with the labels along it."""

    name: str
    x: float
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Path:
    """A job as a line through the scales; `share` is how good it is."""

    name: str
    points: str
    share: float
    is_best: bool


def parallel(report: Report) -> tuple[list[Scale], list[Path]]:
    """Parallel coordinates of all axes and the metric; the best job is drawn last, on top."""
    rows = [row for row in report.ranked if row.is_ok and row.value(report.metric) is not None]
    rows = rows[:MOST_LINES]
    if not rows:
        return [], []
    names = [*report.axes, report.metric]
    step = (WIDTH - 2 * 60) / (len(names) - 1)
    values = {axis: values_of(report.jobs, axis) for axis in report.axes}
    metric = [row.value(report.metric) or 0.0 for row in rows]
    low, high = min(metric), max(metric)
    scales = [
        Scale(axis, 60 + at * step, [(_y(n, len(values[axis])), setting_text(one)[:14])
                                     for n, one in _few(values[axis])])
        for at, axis in enumerate(report.axes)
    ]  # fmt: skip
    ends = [(HEIGHT - EDGE, number_text(low)), (EDGE, number_text(high))]
    scales.append(Scale(report.metric, WIDTH - 60, ends))
    paths = []
    for row, value in zip(rows, metric, strict=True):
        share = (value - low) / (high - low) if high > low else 1.0
        marks = [
            (scale.x, _y(values[scale.name].index(row.settings[scale.name]),
                         len(values[scale.name])))
            for scale in scales[:-1] if scale.name in row.settings
        ]  # fmt: skip
        marks.append((scales[-1].x, HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE)))
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in marks)
        good = 1 - share if report.goal == "min" else share
        paths.append(Path(row.name, points, round(good, 3), row is report.best))
    return scales, paths[::-1]


def _y(place: int, count: int) -> float:
    share = place / (count - 1) if count > 1 else 0.5
    return HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE)


def _few(values: Sequence[Json], most: int = 9) -> list[tuple[int, Json]]:
    """Some of the values, evenly, with their places."""
    every = max(1, math.ceil(len(values) / most))
    return [(at, value) for at, value in enumerate(values) if at % every == 0]
