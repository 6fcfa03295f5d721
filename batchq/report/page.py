"""The report as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

import time
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from batchq.amounts import money
from batchq.report import charts
from batchq.report.tables import MEASURES, Report, effects_of, heatmap_of, setting_text
from batchq.report.texts import (
    delta_text,
    measures_text,
    number_text,
    state_text,
    took_text,
    verdict,
)

MAX_ROWS = 500
"""Most jobs that the page lists: a browser becomes slow beyond it; `summary.csv` has them all."""

_LEAST_FOR_HISTOGRAM = 8


def report_page(report: Report) -> str:
    """Writes the page."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        number=number_text,
        delta=delta_text,
        measures=measures_text,
        took=took_text,
        setting=setting_text,
        breakable=_breakable,
    )
    heatmap = heatmap_of(report)
    scales, paths = charts.parallel(report) if len(report.axes) > 2 else ([], [])
    durations = [one for step in report.steps for one in step.durations]
    source = files("batchq.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        report=report,
        verdict=verdict(report),
        state=state_text(report),
        columns=_columns(report),
        has_calls=any(step.summary.usage.calls for step in report.steps),
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
        histograms=_histograms(report, durations),
        money=money,
        made=time.strftime("%Y-%m-%d %H:%M"),
    )


def _columns(report: Report) -> list[str]:
    """The metrics, the one that ranks first: a narrow screen shows that one beside the names."""
    ranks = [report.metric] if report.metric not in MEASURES else []
    return ranks + [metric for metric in report.metrics if metric != report.metric]


def _breakable(name: str) -> Markup:
    """A text whose names may be broken after an underscore."""
    return Markup("_<wbr>").join(name.split("_"))  # which escapes the pieces


def _histograms(
    report: Report, durations: list[float]
) -> list[tuple[str, str, str, list[charts.Bar]]]:
    """Title, least, most and bars of what is worth a look at its distribution."""
    found = []
    if len(durations) >= _LEAST_FOR_HISTOGRAM:
        ends = took_text(min(durations)), took_text(max(durations))
        found.append(("Duration", *ends, charts.histogram(durations)))
    for metric in report.metrics[:6]:
        values = [value for row in report.jobs if (value := row.value(metric)) is not None]
        if len(values) >= _LEAST_FOR_HISTOGRAM and min(values) < max(values):
            ends = number_text(min(values)), number_text(max(values))
            found.append((metric, *ends, charts.histogram(values)))
    ended = [moment for moment in report.ended_at if moment]
    if len(ended) >= _LEAST_FOR_HISTOGRAM and ended[-1] > ended[0]:
        span = took_text(ended[-1] - ended[0])
        found.append(("Items done over time", "0s", span, charts.histogram(ended)))
    return found
