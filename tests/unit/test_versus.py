"""Two runs side by side: figures, jobs and items, in every form."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from typing import Any

from batchq.outcome import Summary, Usage
from batchq.report import Report, Versus
from batchq.report.figures import StepFigures
from batchq.report.tables import Row
from batchq.report.versus import figures_of, job_pairs
from batchq.report.versuspage import versus_csv, versus_page, versus_text


def row(name: str, score: float | None, *, is_ok: bool = True) -> Row:
    return Row(name, is_ok, {}, {"score": score}, {"cpu_s": 2.0, "peak_bytes": 5e6})


def report(version: str, jobs: list[Row], **changes: Any) -> Report:
    made = Report(
        name="tuning",
        pipeline="tuning",
        version=version,
        state="completed",
        about={"manifest": "<tuning.yaml>"},
        jobs=jobs,
        axes=[],
        metrics=["score"] if jobs else [],
        metric="score",
        goal="max",
        baseline="",
        planned=len(jobs),
        steps=[StepFigures("jobs", Summary(ok=len(jobs)))],
        failures=[],
        worked_s=60.0,
    )
    return replace(made, **changes)


JOBS = Versus(
    report("v0", [row("a", 0.5), row("b", 0.5), row("old", 0.9), row("c", 0.1)]),
    report("v1", [row("a", 0.6), row("b", 0.1), row("new", 0.8), row("c", None, is_ok=False)]),
    [("changed", 2, "a, b"), ("regressed", 1, "<c>")],
)


def test_jobs_are_paired_by_name_and_those_that_changed_most_come_first() -> None:
    pairs = job_pairs(JOBS)

    assert [(one.name, one.texts) for one in pairs] == [
        ("b", ("0.5", "0.1", "−0.4")),  # noqa: RUF001
        ("a", ("0.5", "0.6", "+0.1")),
        ("new", ("not there", "0.8", "")),
        ("c", ("0.1", "failed", "")),
        ("old", ("0.9", "not there", "")),
    ]
    assert [JOBS.is_better(one.delta) for one in pairs[:3]] == [False, True, None]


def test_figures_say_what_got_better() -> None:
    figures = {one.name: one for one in figures_of(JOBS)}

    assert figures["best score"].texts == ("0.9", "0.8", "−11%")  # noqa: RUF001
    assert figures["best score"].is_better is False
    assert figures["time"].texts == ("1m 00s", "1m 00s", "same")
    assert "cost" not in figures


def test_runs_of_calls_are_compared_by_latency_cost_and_metrics() -> None:
    sides = []
    for version, slow, usd in (("v0", 2.0, 4_000_000), ("v1", 1.0, 5_000_000)):
        used = Usage(2, 100, 20, usd)
        step = StepFigures("ask", Summary(ok=2, usage=used), latencies=[slow, slow])
        step.metrics["confidence"] = [slow / 4, slow / 4]
        sides.append(report(version, [], steps=[step]))

    figures = {one.name: one for one in figures_of(Versus(*sides))}

    assert figures["latency of a call, median"].texts == ("2.00s", "1.00s", "−50%")  # noqa: RUF001
    assert figures["latency of a call, median"].is_better is True
    assert (figures["cost"].texts[2], figures["cost"].is_better) == ("+25%", False)
    assert figures["mean confidence"].texts == ("0.5", "0.25", "−50%")  # noqa: RUF001
    assert figures["mean confidence"].is_better is None
    assert "figure,v0,v1" in versus_csv(Versus(*sides))


def test_every_form_tells_of_both() -> None:
    rows = list(csv.DictReader(io.StringIO(versus_csv(JOBS))))
    text, page = versus_text(JOBS), versus_page(JOBS)

    assert rows[0] == {"job": "b", "score_v0": "0.5", "score_v1": "0.1", "score_delta": "-0.4"}
    assert "**v0: old has the highest score: 0.9. v1: new has the highest score: 0.8.**" in text
    assert "| changed | 2 | a, b |" in text
    assert "best in v0</span>" in page
    assert "best in v1</span>" in page
    assert "&lt;c&gt;" in page
    assert "<c>" not in page
    assert not re.search(r"(src|href|url)\s*[=(]", page)
