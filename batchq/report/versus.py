"""Two runs side by side: what they came to, and which jobs got better. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import fmean

from batchq.report.figures import percentile
from batchq.report.tables import Report
from batchq.report.texts import NOTHING, delta_text, number_text, took_text, verdict
from batchq.text.amounts import duration, money, size_text

Text = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of both runs; `better` is None where neither more nor less of it is better."""

    name: str
    left: float | None
    right: float | None
    text: Text
    better: str = ""

    @property
    def texts(self) -> tuple[str, str, str]:
        """Both values and the difference, for people."""
        both = [NOTHING if one is None else self.text(one) for one in (self.left, self.right)]
        return both[0], both[1], self._change()

    @property
    def is_better(self) -> bool | None:
        """Whether the right one is better; None for a draw, and where nobody can say."""
        if self.left is None or self.right is None or self.left == self.right or not self.better:
            return None
        return (self.right < self.left) == (self.better == "min")

    def _change(self) -> str:
        if self.left is None or self.right is None:
            return ""
        if self.left == self.right:
            return "same"
        if not self.left:
            return "new"
        return f"{(self.right - self.left) / abs(self.left):+.0%}".replace("-", "−")  # noqa: RUF001


@dataclass(frozen=True, slots=True)
class JobPair:
    """A job of both runs, or of one; the metric is None where it has none there."""

    name: str
    left: float | None
    right: float | None
    states: tuple[str, str]

    @property
    def delta(self) -> float | None:
        """How far the right one is from the left one."""
        return None if self.left is None or self.right is None else self.right - self.left

    @property
    def texts(self) -> tuple[str, str, str]:
        """Both values, or why there is none, and the difference, for people."""
        left, right = (
            state if value is None else number_text(value)
            for value, state in zip((self.left, self.right), self.states, strict=True)
        )
        return left, right, delta_text(self.delta)


@dataclass(frozen=True)
class Versus:
    """Two reports, with what became of the items: (what, how many, which) for each change."""

    left: Report
    right: Report
    changes: Sequence[tuple[str, int, str]] = ()

    @property
    def metric(self) -> str:
        """What ranks the jobs; that of the right run."""
        return self.right.metric

    def is_better(self, delta: float | None) -> bool | None:
        """Whether a difference of the metric is for the better."""
        return None if delta is None else self.right.is_better(delta)

    @property
    def verdict(self) -> str:
        """What came of both in a sentence or two."""
        told = [f"{one.version}: {text}" for one in (self.left, self.right)
                if (text := verdict(one))]  # fmt: skip
        return " ".join(told)


def job_pairs(seen: Versus) -> list[JobPair]:
    """The jobs of both, those that changed most first; those of one run alone come last."""
    sides = [{row.name: row for row in one.jobs} for one in (seen.left, seen.right)]
    pairs = []
    for name in dict.fromkeys(name for side in reversed(sides) for name in side):
        rows = [side.get(name) for side in sides]
        values = [row.value(seen.metric) if row and row.is_ok else None for row in rows]
        states = ["not there" if row is None else NOTHING if row.is_ok else "failed"
                  for row in rows]  # fmt: skip
        pairs.append(JobPair(name, values[0], values[1], (states[0], states[1])))
    return sorted(pairs, key=lambda one: (one.delta is None, -abs(one.delta or 0.0)))


def figures_of(seen: Versus) -> list[Figure]:
    """What both runs came to, in the order people ask for it; what neither has is left out."""
    found = [
        _figure(seen, "ok", _total("ok"), _count),
        _figure(seen, "failed", _total("failed"), _count, "min"),
        *_metrics(seen),
        _figure(seen, "time", attrgetter("worked_s"), duration, "min"),
        _figure(seen, "CPU time", lambda one: sum(_measured(one, "cpu_s")), duration, "min"),
        _figure(seen, "peak memory", lambda one: max(_measured(one, "peak_bytes"), default=0.0),
                size_text, "min"),
        _figure(seen, "calls", _total("usage.calls"), _count),
        _figure(seen, "retries", _total("retries"), _count, "min"),
        _figure(seen, "latency of a call, median", lambda one: percentile(_latencies(one), 0.5),
                took_text, "min"),
        _figure(seen, "latency of a call, p95", lambda one: percentile(_latencies(one), 0.95),
                took_text, "min"),
        _figure(seen, "tokens", _total("usage.tokens"), _count),
        _figure(seen, "cost", _total("usage.cost_usd"), money, "min"),
    ]  # fmt: skip
    return [one for one in found if one.left or one.right]


def _figure(
    seen: Versus, name: str, of: Callable[[Report], float], text: Text, better: str = ""
) -> Figure:
    return Figure(name, of(seen.left), of(seen.right), text, better)


def _total(name: str) -> Callable[[Report], float]:
    read = attrgetter(name)
    return lambda report: float(sum(read(step.summary) for step in report.steps))


def _metrics(seen: Versus) -> list[Figure]:
    """The best value of the metric that ranks, and the means of the others."""
    left, right = seen.left, seen.right
    found = []
    for metric in dict.fromkeys((*right.metrics, *left.metrics)):
        if metric == right.metric:
            best = [_best(_values(one, metric), right.goal) for one in (left, right)]
            found.append(Figure(f"best {metric}", best[0], best[1], number_text, right.goal))
        else:
            means = [_mean(_values(one, metric)) for one in (left, right)]
            found.append(Figure(f"mean {metric}", means[0], means[1], number_text))
    for name in dict.fromkeys(n for one in (right, left) for s in one.steps for n in s.metrics):
        means = [_mean([value for step in one.steps for value in step.metrics.get(name, ())])
                 for one in (left, right)]  # fmt: skip
        found.append(Figure(f"mean {name}", means[0], means[1], number_text))
    return found


def _values(report: Report, metric: str) -> list[float]:
    values = (row.value(metric) for row in report.jobs if row.is_ok)
    return [value for value in values if value is not None]


def _best(values: Sequence[float], goal: str) -> float | None:
    if not values:
        return None
    return min(values) if goal == "min" else max(values)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _measured(report: Report, name: str) -> list[float]:
    return [row.measures.get(name, 0.0) for row in report.jobs]


def _latencies(report: Report) -> list[float]:
    return [value for step in report.steps for value in step.latencies]


def _count(number: float) -> str:
    return f"{number:,.0f}"
