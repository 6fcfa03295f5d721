"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from batchq.report.figures import SHARES, StepFigures, percentile, spread_of
from batchq.report.headline import headline
from batchq.report.repeats import Setting, settings_of
from batchq.report.tables import Report, Row, effects_of, setting_text
from batchq.report.texts import (
    NOTHING,
    causes_text,
    delta_text,
    measures_text,
    number_text,
    spread_text,
    state_text,
    took_text,
    verdict,
)
from batchq.text.amounts import money

MARKDOWN_ROWS = 100
"""Jobs that the Markdown shows; `summary.csv` has them all."""


def report_text(report: Report) -> str:
    """The report in Markdown."""
    lines = [f"# {report.pipeline} {report.version}", ""]
    if text := verdict(report):
        lines += [f"**{text}**", ""]
    lines += [state_text(report), ""]
    lines += [f"- {name}: {value}, {more}" for name, value, more in headline(report)[1:]]
    lines += [f"- warning: {warning}" for warning in report.warnings]
    if settings := settings_of(report):
        lines += ["", "## Settings over their repeats", "", *_settings_table(report, settings)]
    if report.jobs:
        lines += ["", "## Jobs", "", *_jobs_table(report)]
    for effect in effects_of(report):
        lines += ["", f"## Effect of {effect.axis} on {report.metric}", ""]
        lines += table_head("value", "jobs", "mean", "least", "most")
        lines += [
            line(setting_text(one.value), str(one.count),
                  *map(number_text, (one.mean, one.low, one.high)))
            for one in effect.levels
        ]  # fmt: skip
    lines += ["", "## Steps", "", *_steps_table(report)]
    if rows := [_metric_line(step, *one) for step in report.steps for one in step.metrics.items()]:
        lines += ["", "## Metrics", "", *table_head("step", "metric", "items", "mean", "least",
                                               "median", "most", left=2), *rows]  # fmt: skip
    if any(step.causes for step in report.steps):
        lines += ["", "## Tries that failed", ""]
        lines += [f"- {one.name}: {causes_text(one)}" for one in report.steps if one.causes]
    if report.failures:
        lines += ["", "## Failures", ""]
    for group in report.failures:
        lines.append(f"- {group.count} {group.kind}: {group.sample.error.message}")
    lines += ["", "## Where it came from", ""]
    lines += [f"- {name}: {value}" for name, value in report.about.items()]
    return "\n".join(lines) + "\n"


def _jobs_table(report: Report) -> list[str]:
    head = ["job", *report.axes, *report.metrics, "time", "CPU", "memory", "size"]
    left = 1 + len(report.axes)
    lines = table_head(*head, left=left)
    lines += [_job_line(report, row) for row in report.ranked[:MARKDOWN_ROWS]]
    if len(report.ranked) > MARKDOWN_ROWS:
        lines += ["", f"{len(report.ranked) - MARKDOWN_ROWS:,} more are in summary.csv."]
    return lines


def _settings_table(report: Report, settings: Sequence[Setting]) -> list[str]:
    axes = [axis for axis in report.axes if axis != "seed"]
    lines = table_head("setting", *axes, "ok", *report.metrics, left=1 + len(axes))
    for one in settings[:MARKDOWN_ROWS]:
        name = f"**{one.name}** (best)" if one is settings[0] and one.ok else one.name
        values = [setting_text(one.settings[axis]) if axis in one.settings else NOTHING
                  for axis in axes]  # fmt: skip
        ok = f"{one.ok}/{len(one.rows)}"
        lines.append(line(name, *values, ok, *(spread_text(one.spread(metric))
                                                for metric in report.metrics)))  # fmt: skip
    return lines


def _steps_table(report: Report) -> list[str]:
    lines = table_head("step", "ok", "failed", "retries", "median", "p95", "p99")
    has_calls = any(step.summary.usage.calls for step in report.steps)
    if has_calls:
        lines = table_head("step", "ok", "failed", "retries", "median", "p95", "p99",
                      "call median", "p95", "p99", "calls", "tokens", "cost")  # fmt: skip
    for step in report.steps:
        done, usage = step.summary, step.summary.usage
        cells = [step.name, f"{done.ok:,}", f"{done.failed:,}", f"{done.retries:,}"]
        cells += [took_text(step.percentile(share)) for share in SHARES]
        if has_calls:
            cells += [took_text(percentile(step.latencies, share)) if step.latencies else NOTHING
                      for share in SHARES]  # fmt: skip
            cells += [f"{usage.calls:,}", f"{usage.tokens:,}",
                      money(usage.cost_usd, usage.unpriced_calls)]  # fmt: skip
        lines.append(line(*cells))
    return lines


def _metric_line(step: StepFigures, name: str, values: Sequence[float]) -> str:
    spread = spread_of(values)
    assert spread is not None  # a metric is kept with its first value
    numbers = (spread.low, percentile(values, 0.5), spread.high)
    return line(step.name, name, f"{spread.count:,}", spread_text(spread),
                 *map(number_text, numbers))  # fmt: skip


def _job_line(report: Report, row: Row) -> str:
    name = f"**{row.name}** (best)" if row is report.best else row.name
    if not row.is_ok:
        name += " (failed)"
    cells = [setting_text(row.settings[axis]) if axis in row.settings else NOTHING
             for axis in report.axes]  # fmt: skip
    for metric in report.metrics:
        delta = delta_text(report.delta(row, metric))
        cells.append(f"{number_text(row.value(metric))}{f' ({delta})' if delta else ''}")
    return line(name, *cells, *measures_text(row))


def table_head(*names: str, left: int = 1) -> list[str]:
    """The first two lines of a table; `left` columns hold words."""
    rules = ["---"] * left + ["--:"] * (len(names) - left)
    return [line(*names), f"| {' | '.join(rules)} |"]


def line(*cells: str) -> str:
    """A row of a table."""
    safe = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(safe)} |"
