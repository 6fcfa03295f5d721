"""What the steps of a run came to, added up outcome by outcome."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from batchq.engine.measure import numbers_in
from batchq.outcome import Attempt, Outcome, Summary

SHARES = (0.5, 0.95, 0.99)
"""The shares whose percentiles are told."""
USUAL_METRICS = ("confidence",)
"""What is taken for a metric of outputs where a manifest names none."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so many of them do not exceed (nearest rank); 0 of none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(frozen=True, slots=True)
class Spread:
    """Numbers in short: how many, their mean, and how far they stray from it."""

    count: int
    mean: float
    deviation: float | None
    low: float
    high: float


def spread_of(values: Iterable[float | None]) -> Spread | None:
    """The mean and the standard deviation (of a sample) of what is known; None of nothing."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    deviation = stdev(known) if len(known) > 1 else None
    return Spread(len(known), fmean(known), deviation, min(known), max(known))


@dataclass(slots=True)
class StepFigures:
    """What a step came to.

    `durations` are those of its items, `latencies` those of its calls to models, without the time
    that they waited for their turn. `causes` counts the tries that failed, by kind.
    """

    name: str
    summary: Summary = field(default_factory=Summary)
    durations: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    answer_tokens: list[float] = field(default_factory=list)
    waited_s: float = 0.0
    causes: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    wanted: Sequence[str] = ()

    def add(self, outcome: Outcome) -> None:
        """Adds what became of one item."""
        self.summary += Summary.of(outcome)
        self.durations.append(outcome.ended_at - outcome.started_at)
        for attempt in outcome.attempts:
            self._add_try(attempt)
        if outcome.is_ok and self.wanted:
            for name, value in numbers_in(outcome.output, self.wanted).items():
                if value is not None:
                    self.metrics.setdefault(name, []).append(value)

    def _add_try(self, attempt: Attempt) -> None:
        self.waited_s += attempt.waited_s
        if attempt.error is not None:
            self.causes[attempt.error.kind] += 1
        if attempt.usage.calls and not attempt.cached:
            self.latencies.append(max(0.0, attempt.duration_s - attempt.waited_s))
            self.answer_tokens.append(attempt.usage.output_tokens)
            self.models[attempt.model] += 1

    def percentile(self, share: float) -> float:
        """The duration that so many of the items did not exceed (nearest rank)."""
        return percentile(self.durations, share)

    @property
    def cost_per_1000(self) -> float:
        """Dollars for a thousand items that ended."""
        done = self.summary.total
        return 1000 * self.summary.usage.cost_usd / done if done else 0.0
