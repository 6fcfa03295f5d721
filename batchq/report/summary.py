"""The report as `summary.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from batchq.report.figures import SHARES, Spread, percentile, spread_of
from batchq.report.repeats import settings_of
from batchq.report.tables import MEASURES, Report, Row, setting_text


def summary_csv(report: Report) -> str:
    """A row a job, ranked, or a row a step where there are no jobs; every number in full.

    A job that is repeated has the mean and the standard deviation over all repeats beside it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if not report.jobs:
        _write_steps(writer, report)
        return text.getvalue()
    settings = {one.name: one for one in settings_of(report)}
    spreads = {name: [one.spread(metric) for metric in report.metrics]
               for name, one in settings.items()}  # fmt: skip
    over = [f"{metric}_{what}" for metric in report.metrics for what in ("mean", "sd")]
    writer.writerow(
        ["rank", "job", "state", *report.axes, *report.metrics, f"{report.metric}_delta",
         *(["setting", *over] if settings else []), *MEASURES, "error"]
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
                *_over_repeats(row, spreads, len(over)),
                *(_plain(row.measures.get(name)) for name in MEASURES),
                row.error,
            ]
        )  # fmt: skip
    return text.getvalue()


def _write_steps(writer: Any, report: Report) -> None:
    metrics = [*dict.fromkeys(name for step in report.steps for name in step.metrics)]
    over = [f"{name}_{what}" for name in metrics for what in ("mean", "sd")]
    writer.writerow(["step", "ok", "failed", "retries", "from_cache", "repaired", "p50_s", "p95_s",
                     "p99_s", "call_p50_s", "call_p95_s", "call_p99_s", "calls", "input_tokens",
                     "output_tokens", "cost_usd", "unpriced_calls", *over])  # fmt: skip
    for step in report.steps:
        done, usage = step.summary, step.summary.usage
        times = [round(step.percentile(share), 3) for share in SHARES]
        calls = [round(percentile(step.latencies, share), 3) if step.latencies else ""
                 for share in SHARES]  # fmt: skip
        spreads = [spread_of(step.metrics.get(name, ())) for name in metrics]
        pairs = ((one.mean, one.deviation) if one else (None, None) for one in spreads)
        writer.writerow(
            [step.name, done.ok, done.failed, done.retries, done.cached, done.repaired,
             *times, *calls, usage.calls, usage.input_tokens, usage.output_tokens,
             usage.cost_usd, usage.unpriced_calls,
             *(_plain(value) for pair in pairs for value in pair)]
        )  # fmt: skip


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value!r}"


def _over_repeats(
    row: Row, spreads: Mapping[str, Sequence[Spread | None]], columns: int
) -> list[str]:
    if not spreads:
        return []
    found = spreads.get(row.setting)
    if found is None:
        return [""] * (1 + columns)
    pairs = ((one.mean, one.deviation) if one else (None, None) for one in found)
    return [row.setting, *(_plain(value) for pair in pairs for value in pair)]
