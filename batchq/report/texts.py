"""The report as `summary.csv` and as Markdown."""

from __future__ import annotations

import csv
import io
from typing import Any

from batchq.amounts import count, money, seconds_text
from batchq.report.tables import MEASURES, Report, Row, effects_of, setting_text

NOTHING = "–"  # noqa: RUF001 (as people write it)
MARKDOWN_ROWS = 100
"""Jobs that the Markdown shows; `summary.csv` has them all."""


def summary_csv(report: Report) -> str:
    """A row a job, ranked, or a row a step where there are no jobs; every number in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if not report.jobs:
        _write_steps(writer, report)
        return text.getvalue()
    writer.writerow(
        ["rank", "job", "state", *report.axes, *report.metrics,
         f"{report.metric}_delta", *MEASURES, "error"]
    )  # fmt: skip
    for rank, row in enumerate(report.ranked, 1):
        delta = report.delta(row, report.metric)
        writer.writerow(
            [
                rank,
                row.name,
                "ok" if row.is_ok else "failed",
                *(setting_text(row.settings[axis]) if axis in row.settings else ""
                  for axis in report.axes),
                *(_plain(row.value(metric)) for metric in report.metrics),
                _plain(delta),
                *(_plain(row.measures.get(name)) for name in MEASURES),
                row.error,
            ]
        )  # fmt: skip
    return text.getvalue()


def _write_steps(writer: Any, report: Report) -> None:
    writer.writerow(["step", "ok", "failed", "retries", "p50_s", "p95_s", "p99_s", "calls",
                     "input_tokens", "output_tokens", "cost_usd", "unpriced_calls"])  # fmt: skip
    for step in report.steps:
        done, usage = step.summary, step.summary.usage
        times = [round(step.percentile(share), 3) for share in (0.5, 0.95, 0.99)]
        writer.writerow(
            [step.name, done.ok, done.failed, done.retries, *times, usage.calls,
             usage.input_tokens, usage.output_tokens, usage.cost_usd, usage.unpriced_calls]
        )  # fmt: skip


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value!r}"


def number_text(value: float | None) -> str:
    """A metric for people: four figures, or whole as it is."""
    if value is None:
        return NOTHING
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def delta_text(value: float | None) -> str:
    """A difference for people, with its sign."""
    if value is None:
        return ""
    sign = "+" if value > 0 else "−"  # noqa: RUF001 (as wide as a plus)
    return "±0" if value == 0 else f"{sign}{number_text(abs(value))}"


def size_text(size: float) -> str:
    """An amount of bytes for people."""
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def took_text(seconds: float) -> str:
    """A duration for people: a short one in hundredths of a second."""
    return f"{seconds:.2f}s" if seconds < 9.995 else seconds_text(seconds)


def measures_text(row: Row) -> list[str]:
    """Time, CPU time, memory and size of a job for people."""
    took = row.measures
    texts = [took_text(took[name]) if name in took else NOTHING for name in MEASURES[:2]]
    texts += [size_text(took[name]) if took.get(name) else NOTHING for name in MEASURES[2:]]
    return texts


def verdict(report: Report) -> str:
    """The answer in one sentence."""
    best = report.best
    if best is None:
        return "No job has ended well yet." if report.jobs else ""
    value = number_text(best.value(report.metric))
    word = "lowest" if report.goal == "min" else "highest"
    text = f"{best.name} has the {word} {report.metric}: {value}"
    delta = report.delta(best, report.metric)
    if delta is not None and report.base is not None:
        text += f" ({delta_text(delta)} against {report.base.name})"
    return f"{text}."


def report_text(report: Report) -> str:
    """The report in Markdown."""
    lines = [f"# {report.pipeline} {report.version}", ""]
    if text := verdict(report):
        lines += [f"**{text}**", ""]
    lines += [state_text(report), ""]
    lines += [f"- warning: {warning}" for warning in report.warnings]
    if report.jobs:
        lines += ["", "## Jobs", "", *_jobs_table(report)]
    for effect in effects_of(report):
        lines += ["", f"## Effect of {effect.axis} on {report.metric}", ""]
        lines += ["| value | jobs | mean | least | most |", "| --- | --: | --: | --: | --: |"]
        lines += [
            _line(setting_text(one.value), str(one.count),
                  *map(number_text, (one.mean, one.low, one.high)))
            for one in effect.levels
        ]  # fmt: skip
    lines += ["", "## Steps", "", "| step | ok | failed | retries | median | p95 | tokens | cost |"]
    lines += ["| --- | --: | --: | --: | --: | --: | --: | --: |"]
    for step in report.steps:
        usage = step.summary.usage
        lines.append(_line(
            step.name, f"{step.summary.ok:,}", f"{step.summary.failed:,}",
            f"{step.summary.retries:,}", took_text(step.percentile(0.5)),
            took_text(step.percentile(0.95)), f"{usage.tokens:,}",
            money(usage.cost_usd, usage.unpriced_calls),
        ))  # fmt: skip
    if report.failures:
        lines += ["", "## Failures", ""]
    for group in report.failures:
        lines.append(f"- {group.count} {group.kind}: {group.sample.error.message}")
    lines += ["", "## Where it came from", ""]
    lines += [f"- {name}: {value}" for name, value in report.about.items()]
    return "\n".join(lines) + "\n"


def state_text(report: Report) -> str:
    """How far the run is."""
    ok = sum(step.summary.ok for step in report.steps)
    failed = sum(step.summary.failed for step in report.steps)
    words = [report.state, f"{ok:,} ok", f"{failed:,} failed"]
    if report.jobs and len(report.jobs) < report.planned:
        words.append(f"{count(report.planned - len(report.jobs), 'job')} to come")
    return ", ".join(words)


def _jobs_table(report: Report) -> list[str]:
    head = ["job", *report.axes, *report.metrics, "time", "CPU", "memory", "size"]
    left = 1 + len(report.axes)
    rules = ["---"] * left + ["--:"] * (len(head) - left)
    lines = [_line(*head), f"| {' | '.join(rules)} |"]
    lines += [_job_line(report, row) for row in report.ranked[:MARKDOWN_ROWS]]
    if len(report.ranked) > MARKDOWN_ROWS:
        lines += ["", f"{len(report.ranked) - MARKDOWN_ROWS:,} more are in summary.csv."]
    return lines


def _job_line(report: Report, row: Row) -> str:
    name = f"**{row.name}** (best)" if row is report.best else row.name
    if not row.is_ok:
        name += " (failed)"
    cells = [setting_text(row.settings[axis]) if axis in row.settings else NOTHING
             for axis in report.axes]  # fmt: skip
    for metric in report.metrics:
        delta = delta_text(report.delta(row, metric))
        cells.append(f"{number_text(row.value(metric))}{f' ({delta})' if delta else ''}")
    return _line(name, *cells, *measures_text(row))


def _line(*cells: str) -> str:
    safe = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(safe)} |"
