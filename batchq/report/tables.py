"""The jobs of a run side by side: ranked by a metric, with the best and what differs. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from batchq.outcome import Json
from batchq.plan import Goal
from batchq.report.failures import FailureGroup
from batchq.report.figures import StepFigures, spread_of

TOOK = "duration_s"
MEASURES = (TOOK, "cpu_s", "peak_bytes", "output_bytes")
"""What is measured of every job, in the order of the columns."""


@dataclass(frozen=True, slots=True)
class Row:
    """A job: its settings on the axes, its metrics, and what it took.

    `setting` is what it and the other repeats of its setting are called together.
    """

    name: str
    is_ok: bool
    settings: Mapping[str, Json]
    metrics: Mapping[str, float | None]
    measures: Mapping[str, float]
    error: str = ""
    problem: str = ""
    is_of_matrix: bool = False
    setting: str = ""

    def value(self, metric: str) -> float | None:
        """A metric or a measure; None if the job has none, or NaN."""
        found = self.measures[metric] if metric in self.measures else self.metrics.get(metric)
        return None if found is None or not math.isfinite(found) else found


@dataclass(frozen=True)
class Report:
    """All that a report tells. `metric` is the one that ranks the jobs, `goal` what is better."""

    name: str
    pipeline: str
    version: str
    state: str
    about: Mapping[str, str]
    jobs: Sequence[Row]
    axes: Sequence[str]
    metrics: Sequence[str]
    metric: str
    goal: Goal
    baseline: str
    planned: int
    steps: Sequence[StepFigures]
    failures: Sequence[FailureGroup]
    ended_at: Sequence[float] = ()
    tokens_at: Sequence[tuple[float, int]] = ()
    worked_s: float = 0.0
    warnings: Sequence[str] = field(default_factory=list)

    @cached_property
    def ranked(self) -> list[Row]:
        """The jobs from the best to the worst; those without the metric come last."""
        sign = 1 if self.goal == "min" else -1

        def place(row: Row) -> tuple[bool, bool, float]:
            value = row.value(self.metric)
            return (not row.is_ok, value is None, sign * (value or 0.0))

        return sorted(self.jobs, key=place)

    @cached_property
    def balanced(self) -> list[Row]:
        """The jobs whose settings are combined evenly: those of the matrix, if there is one.

        One that is written out would tell of an axis what its other settings do.
        """
        return [row for row in self.jobs if row.is_of_matrix] or [*self.jobs]

    @cached_property
    def best(self) -> Row | None:
        """The job with the best metric; None if no job has it."""
        first = self.ranked[0] if self.ranked else None
        return first if first and first.is_ok and first.value(self.metric) is not None else None

    @cached_property
    def base(self) -> frozenset[str]:
        """The job that the others are compared with, or the repeats of that setting, by name."""
        names = (row.name for row in self.jobs if self.baseline in (row.name, row.setting))
        return frozenset(names) if self.baseline else frozenset()

    def delta(self, row: Row, metric: str) -> float | None:
        """How far a job is from the baseline; None where one of both has no value."""
        return None if row.name in self.base else self.distance(row.value(metric), metric)

    def distance(self, value: float | None, metric: str) -> float | None:
        """How far a value is from that of the baseline, or from the mean of its repeats."""
        if metric not in self._base_means:
            rows = (row for row in self.jobs if row.name in self.base)
            found = spread_of(row.value(metric) for row in rows)
            self._base_means[metric] = found.mean if found else None
        base = self._base_means[metric]
        return None if value is None or base is None else value - base

    @cached_property
    def _base_means(self) -> dict[str, float | None]:
        return {}

    def is_better(self, delta: float) -> bool | None:
        """Whether a difference of the ranking metric is for the better; None for none at all."""
        return None if delta == 0 else (delta < 0) == (self.goal == "min")


@dataclass(frozen=True, slots=True)
class Level:
    """The jobs with one value of an axis: how many, and their metric."""

    value: Json
    count: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Effect:
    """What an axis does to the metric; `spread` is between its best and its worst mean."""

    axis: str
    levels: Sequence[Level]

    @property
    def spread(self) -> float:
        """How far apart the means are."""
        means = [level.mean for level in self.levels]
        return max(means) - min(means)


def effects_of(report: Report) -> list[Effect]:
    """What each axis does, the strongest first; axes with one value only do nothing."""
    found = []
    for axis in report.axes:
        levels = [
            Level(value, len(numbers), sum(numbers) / len(numbers), min(numbers), max(numbers))
            for (value,), numbers in _by_value(report, (axis,))
        ]
        if len(levels) > 1:
            found.append(Effect(axis, levels))
    return sorted(found, key=lambda effect: -effect.spread)


@dataclass(frozen=True, slots=True)
class Heatmap:
    """The mean of the metric for each pair of values of two axes; None where there is no job."""

    rows: str
    columns: str
    row_values: Sequence[Json]
    column_values: Sequence[Json]
    cells: Sequence[Sequence[float | None]]

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value."""
        known = [value for row in self.cells for value in row if value is not None]
        return min(known), max(known)


MOST_CELLS = 40
"""Values of an axis beyond which a heatmap is no help."""


def heatmap_of(report: Report) -> Heatmap | None:
    """The heatmap of an experiment with two axes; None for any other."""
    if len(report.axes) != 2:
        return None
    rows, columns = report.axes
    found = {
        tuple(map(_key, values)): sum(numbers) / len(numbers)
        for values, numbers in _by_value(report, (rows, columns))
    }
    row_values, column_values = (
        values_of(report.balanced, rows),
        values_of(report.balanced, columns),
    )
    if not found or max(len(row_values), len(column_values)) > MOST_CELLS:
        return None
    cells = [[found.get((_key(row), _key(one))) for one in column_values] for row in row_values]
    return Heatmap(rows, columns, row_values, column_values, cells)


def values_of(jobs: Sequence[Row], axis: str) -> list[Json]:
    """The values of an axis among jobs: numbers in order, others as they come."""
    seen = {_key(row.settings[axis]): row.settings[axis] for row in jobs
            if axis in row.settings}  # fmt: skip
    values = [*seen.values()]
    is_numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
    return sorted(values) if is_numbers else values


def _by_value(report: Report, axes: Sequence[str]) -> list[tuple[tuple[Json, ...], list[float]]]:
    """The metric of the jobs with the same values of these axes, by the values, in their order."""
    found: dict[tuple[str, ...], tuple[tuple[Json, ...], list[float]]] = {}
    for row in report.balanced:
        metric = row.value(report.metric)
        if row.is_ok and metric is not None and all(axis in row.settings for axis in axes):
            values = tuple(row.settings[axis] for axis in axes)
            found.setdefault(tuple(map(_key, values)), (values, []))[1].append(metric)
    groups = [*found.values()]
    if all(isinstance(one, int | float) for values, _ in groups for one in values):
        groups.sort(key=lambda group: group[0])
    return groups


def _key(value: Json) -> str:
    return json.dumps(value, sort_keys=True)


def setting_text(value: Any) -> str:
    """A value of an axis for people."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
