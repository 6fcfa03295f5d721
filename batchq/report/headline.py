"""The figures of a whole run, as a report begins with them."""

from __future__ import annotations

from batchq.report.figures import percentile
from batchq.report.tables import Report
from batchq.report.texts import number_text, took_text
from batchq.text.amounts import duration, money, size_text


def headline(report: Report) -> list[tuple[str, str, str]]:
    """The figures of the whole run: name, value, and what there is to add."""
    ok = sum(step.summary.ok for step in report.steps)
    failed = sum(step.summary.failed for step in report.steps)
    summaries = [step.summary for step in report.steps]
    what = "jobs" if report.jobs else "items"
    name = what if len(report.steps) == 1 else f"{what} in {len(report.steps)} steps"
    found = [(name, f"{ok:,}", f"{failed:,} failed" if failed else "all ok" if ok else "")]
    if report.worked_s:
        rate = (ok + failed) / report.worked_s * 60
        found.append(("time", duration(report.worked_s), f"{rate_text(rate)} {what}/min"))
    cpu = sum(row.measures.get("cpu_s", 0.0) for row in report.jobs)
    if cpu:
        peak = max(row.measures.get("peak_bytes", 0.0) for row in report.jobs)
        found.append(("CPU time", duration(cpu), f"at most {size_text(peak)} a job"))
    calls = sum(one.usage.calls for one in summaries)
    if calls:
        retries, cached = sum(s.retries for s in summaries), sum(s.cached for s in summaries)
        more = f"{retries:,} retries" + (f", {cached:,} items from cache" if cached else "")
        found.append(("calls", f"{calls:,}", more))
        latencies = [one for step in report.steps for one in step.latencies]
        p50, p95 = (took_text(percentile(latencies, share)) for share in (0.5, 0.95))
        found.append(("latency of a call", p50, f"95 % within {p95}"))
        tokens_in = sum(one.usage.input_tokens for one in summaries)
        tokens_out = sum(one.usage.output_tokens for one in summaries)
        found.append(("tokens", f"{tokens_in + tokens_out:,}", f"{tokens_out:,} of them answers"))
        usd = sum(one.usage.cost_usd for one in summaries)
        unpriced = sum(one.usage.unpriced_calls for one in summaries)
        most = max(one.total for one in summaries)  # each item may go through all steps
        each = f"{money(1000 * usd / most)} for 1,000 items"
        found.append(("cost", money(usd), f"{unpriced:,} calls unpriced" if unpriced else each))
    return found


def rate_text(per_minute: float) -> str:
    """A rate for people, in three figures."""
    return number_text(float(f"{per_minute:.3g}"))
