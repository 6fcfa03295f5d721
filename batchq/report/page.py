"""The report as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from batchq.report import charts
from batchq.report.escaping import html_environment
from batchq.report.figures import SHARES, percentile, spread_of
from batchq.report.headline import headline, rate_text
from batchq.report.repeats import settings_of
from batchq.report.tables import MEASURES, Report, effects_of, heatmap_of, setting_text
from batchq.report.texts import (
    causes_text,
    delta_text,
    measures_text,
    number_text,
    spread_text,
    state_text,
    took_text,
    verdict,
)
from batchq.text.amounts import duration, money

MAX_ROWS = 500
"""Most jobs that the page lists: a browser becomes slow beyond it; `summary.csv` has them all."""

_LEAST_FOR_HISTOGRAM = 8
_LEAST_FOR_FLOW = 30
_TAIL = 0.99
_MOST_METRICS = 8


def report_page(report: Report) -> str:
    """Writes the page."""
    heatmap = heatmap_of(report)
    scales, paths = charts.parallel(report) if len(report.axes) > 2 else ([], [])
    return render_page(
        "report.html.j2",
        report=report,
        verdict=verdict(report),
        state=state_text(report),
        tiles=headline(report),
        settings=settings_of(report),
        columns=_columns(report),
        most=MAX_ROWS,
        rows=report.ranked[:MAX_ROWS],
        hidden=max(0, len(report.ranked) - MAX_ROWS),
        effects=[(one, charts.spans_of(one, report)) for one in effects_of(report)],
        heatmap=heatmap,
        cells=charts.cells_of(heatmap, report) if heatmap else [],
        scales=scales,
        paths=paths,
        width=charts.WIDTH,
        height=charts.HEIGHT,
        edge=charts.EDGE,
        flows=_flows(report),
        histograms=_histograms(report),
        calls=_calls(report),
        costs=_costs(report),
        shares=SHARES,
        percentile=percentile,
        money=money,
    )


def render_page(template: str, **values: Any) -> str:
    """Fills one of the templates of this package; its style is in it."""
    environment = html_environment()
    environment.filters.update(
        number=number_text,
        delta=delta_text,
        measures=measures_text,
        took=took_text,
        setting=setting_text,
        breakable=_breakable,
        spread=spread_text,
        causes=causes_text,
    )
    home = files("batchq.report")
    style = Markup(home.joinpath("style.css").read_text(encoding="utf-8"))  # noqa: S704 (our own)
    source = home.joinpath(template).read_text(encoding="utf-8")
    made = time.strftime("%Y-%m-%d %H:%M")
    return environment.from_string(source).render(style=style, made=made, **values)


def _columns(report: Report) -> list[str]:
    """The metrics, the one that ranks first: a narrow screen shows that one beside the names."""
    ranks = [report.metric] if report.metric not in MEASURES else []
    return ranks + [metric for metric in report.metrics if metric != report.metric]


def _breakable(name: str) -> Markup:
    """A text whose names may be broken after an underscore."""
    return Markup("_<wbr>").join(name.split("_"))  # which escapes the pieces


def _calls(report: Report) -> list[Any]:
    """The steps that called models."""
    return [step for step in report.steps if step.latencies]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step cost, and its share of the whole in per cent."""

    name: str
    usd: float
    per_1000: float
    share: float
    tokens: str


def _costs(report: Report) -> list[Cost]:
    """What the steps cost, where more than one did."""
    total = sum(step.summary.usage.cost_usd for step in report.steps)
    paid = [step for step in report.steps if step.summary.usage.cost_nusd]
    if len(paid) < 2:
        return []
    return [
        Cost(
            step.name,
            step.summary.usage.cost_usd,
            step.cost_per_1000,
            100 * step.summary.usage.cost_usd / total,
            f"{step.summary.usage.input_tokens:,} + {step.summary.usage.output_tokens:,}",
        )
        for step in paid
    ]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bars with what stands under their ends and beside their title."""

    title: str
    low: str
    high: str
    note: str
    bars: Sequence[charts.Bar]


def _flows(report: Report) -> list[Histogram]:
    """What got done over time."""
    what = "Jobs" if report.jobs else "Items"
    found = []
    for title, amounts in (
        (what, [(at, 1.0) for at in report.ended_at]),
        ("Tokens", [(at, float(tokens)) for at, tokens in report.tokens_at]),
    ):
        seen = charts.flow(amounts) if len(amounts) >= _LEAST_FOR_FLOW else None
        if seen is not None:
            rates = f"mean {rate_text(seen.mean)}, at most {rate_text(seen.highest)}"
            ends = ("start", duration(seen.span_s))
            found.append(Histogram(f"{title} a minute", *ends, rates, seen.bars))
    return found


def _histograms(report: Report) -> list[Histogram]:
    """What is worth a look at its distribution."""
    found = []
    many = len(report.steps) > 1
    for step in report.steps:
        of = f", {step.name}" if many else ""
        if step.latencies:
            found += _times(f"Latency of calls{of}", step.latencies)
            found += _values(f"Tokens of an answer{of}", step.answer_tokens)
        else:
            found += _times(f"Duration{of}", step.durations)
        for name, values in [*step.metrics.items()][:_MOST_METRICS]:
            found += _values(f"{name}{of}", values)
    for metric in report.metrics[:_MOST_METRICS]:
        values = [value for row in report.jobs if (value := row.value(metric)) is not None]
        found += _values(metric, values)
    return found


def _times(title: str, values: Sequence[float]) -> list[Histogram]:
    if len(values) < _LEAST_FOR_HISTOGRAM:
        return []
    most, longest = percentile(values, _TAIL), max(values)
    has_tail = longest > 1.5 * most > 0
    high = f"over {took_text(most)}" if has_tail else took_text(longest)
    bars = charts.histogram(values, most if has_tail else longest)
    middle = f"median {took_text(percentile(values, 0.5))}"
    return [Histogram(title, took_text(min(values)), high, middle, bars)]


def _values(title: str, values: Sequence[float]) -> list[Histogram]:
    if len(values) < _LEAST_FOR_HISTOGRAM or min(values) == max(values):
        return []
    ends = number_text(min(values)), number_text(max(values))
    return [Histogram(title, *ends, f"mean {spread_text(spread_of(values))}",
                      charts.histogram(values))]  # fmt: skip
