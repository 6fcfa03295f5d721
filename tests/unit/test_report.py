from __future__ import annotations

import csv
import io
import re
import time
from dataclasses import replace
from typing import Any

import pytest

from batchq.outcome import Attempt, ItemError, Outcome, State, Summary, Usage
from batchq.report.charts import flow, histogram, parallel
from batchq.report.failures import Failure, group_failures
from batchq.report.figures import StepFigures
from batchq.report.markdown import report_text
from batchq.report.page import report_page
from batchq.report.repeats import settings_of
from batchq.report.summary import summary_csv
from batchq.report.tables import Report, Row, effects_of, heatmap_of
from batchq.report.texts import delta_text, number_text, size_text, verdict


def row(name: str, value: float | None, **settings: Any) -> Row:
    took = {"duration_s": 1.5, "cpu_s": 1.25, "peak_bytes": 5_000_000, "output_bytes": 120}
    return Row(name, True, settings, {"score": value}, took)


def made(jobs: list[Row], **changes: Any) -> Report:
    axes = [*dict.fromkeys(axis for one in jobs for axis in one.settings)]
    failed = [
        Failure(one.name, "jobs", ItemError("task", one.error)) for one in jobs if not one.is_ok
    ]
    report = Report(
        name="tuning",
        pipeline="tuning",
        version="v0",
        state="completed",
        about={"manifest": "tuning.yaml"},
        jobs=jobs,
        axes=axes,
        metrics=["score"],
        metric="score",
        goal="max",
        baseline="base",
        planned=len(jobs),
        steps=[StepFigures("jobs", Summary(ok=len(jobs)), [0.1 * n for n in range(1, 101)])],
        failures=group_failures(failed),
        ended_at=[float(n) for n in range(len(jobs))],
    )
    return replace(report, **changes)


GRID = [
    row("base", 0.5, leaf=20, thresh=0.1),
    row("b", 0.75, leaf=20, thresh=0.2),
    row("c", 0.25, leaf=50, thresh=0.1),
    row("d", 1.0, leaf=50, thresh=0.2),
]
FAILED = Row("e", False, {"leaf": 90, "thresh": 0.2}, {}, {"duration_s": 0.1}, "task: <no> | leaf")


def test_jobs_are_ranked_by_the_metric_and_the_others_come_last() -> None:
    report = made([*GRID, FAILED, row("nan", float("nan")), row("none", None)])

    assert [one.name for one in report.ranked] == ["d", "b", "base", "c", "nan", "none", "e"]
    assert report.best is GRID[3]


def test_where_less_is_better_the_least_is_first() -> None:
    report = made(GRID, goal="min")

    assert [one.name for one in report.ranked] == ["c", "base", "b", "d"]
    assert report.is_better(-0.1)
    assert not report.is_better(0.1)
    assert report.is_better(0) is None


def test_differences_are_those_to_the_baseline() -> None:
    report = made([*GRID, row("none", None)])

    assert [report.delta(one, "score") for one in report.jobs] == [None, 0.25, -0.25, 0.5, None]


def test_the_effect_of_an_axis_is_the_mean_for_each_of_its_values() -> None:
    first, second = effects_of(made([*GRID, FAILED]))

    assert (first.axis, first.spread) == ("thresh", 0.5)
    assert [(one.value, one.count, one.mean) for one in first.levels] == [
        (0.1, 2, 0.375),
        (0.2, 2, 0.875),
    ]
    assert [(one.value, one.low, one.high) for one in second.levels] == [
        (20, 0.5, 0.75),
        (50, 0.25, 1.0),
    ]


def test_jobs_that_are_written_out_tell_nothing_of_the_axes_of_a_matrix() -> None:
    grid = [replace(one, is_of_matrix=True) for one in GRID]

    report = made([*grid, row("own", 9.0, leaf=70, thresh=0.2)])

    assert report.best is not None
    assert report.best.name == "own"
    assert [len(effect.levels) for effect in effects_of(report)] == [2, 2]
    heatmap = heatmap_of(report)
    assert heatmap is not None
    assert heatmap.row_values == [20, 50]


def test_two_axes_make_a_heatmap_with_gaps_where_no_job_is() -> None:
    heatmap = heatmap_of(made([*GRID, FAILED]))

    assert heatmap is not None
    assert (heatmap.row_values, heatmap.column_values) == ([20, 50, 90], [0.1, 0.2])
    assert heatmap.cells == [[0.5, 0.75], [0.25, 1.0], [None, None]]


def test_repeats_are_averaged_in_a_heatmap() -> None:
    heatmap = heatmap_of(made([*GRID, row("again", 0.0, leaf=50, thresh=0.2)]))

    assert heatmap is not None
    assert heatmap.cells[1] == [0.25, 0.5]


def test_more_axes_make_a_line_a_job_with_the_best_on_top() -> None:
    jobs = [row(f"j{n}", n, a=n % 2, b=n % 3, c="x") for n in range(6)]

    scales, paths = parallel(made(jobs))

    assert [scale.name for scale in scales] == ["a", "b", "c", "score"]
    assert (paths[-1].name, paths[-1].is_best, paths[-1].share) == ("j5", True, 1.0)


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ([], []),
        ([3.0], [1]),
        ([1.0, 1.0], [2]),
        ([0.5, 1.0, float("nan"), 10.5], [2, 0, 0, 0, 1]),
        ([0, 1, 10], [2, 0, 0, 1]),  # whole numbers: each bar stands for as many of them
    ],
)
def test_a_histogram_counts_what_is_a_number(values: list[float], counts: list[int]) -> None:
    assert [bar.count for bar in histogram(values)] == counts


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    step = made(GRID).steps[0]

    assert step.percentile(0.5) == pytest.approx(5.0)
    assert step.percentile(0.95) == pytest.approx(9.5)
    assert StepFigures("s", Summary(), []).percentile(0.5) == 0.0


def test_the_csv_has_every_job_with_its_numbers_in_full() -> None:
    rows = list(csv.DictReader(io.StringIO(summary_csv(made([*GRID, FAILED])))))

    assert [one["job"] for one in rows] == ["d", "b", "base", "c", "e"]
    assert rows[0] == {
        "rank": "1",
        "job": "d",
        "state": "ok",
        "leaf": "50",
        "thresh": "0.2",
        "score": "1.0",
        "score_delta": "0.5",
        "duration_s": "1.5",
        "cpu_s": "1.25",
        "peak_bytes": "5000000",
        "output_bytes": "120",
        "error": "",
    }
    assert (rows[4]["state"], rows[4]["score"], rows[4]["error"]) == (
        "failed",
        "",
        "task: <no> | leaf",
    )


def test_without_jobs_the_csv_has_every_step() -> None:
    (step,) = csv.DictReader(io.StringIO(summary_csv(made([]))))

    assert (step["step"], step["p50_s"], step["cost_usd"]) == ("jobs", "5.0", "0.0")


def test_the_answer_is_one_sentence() -> None:
    assert verdict(made(GRID)) == "d has the highest score: 1 (+0.5 against base)."
    assert verdict(made([FAILED])) == "No job has ended well yet."


def test_markdown_marks_the_best_and_names_failures() -> None:
    text = report_text(made([*GRID, FAILED], planned=7))

    assert "| **d** (best) | 50 | 0.2 | 1 (+0.5) |" in text
    assert "- 1 task: task: <no> | leaf" in text
    assert "2 jobs to come" in text


def test_the_page_is_whole_and_loads_nothing() -> None:
    page = report_page(made([*GRID, FAILED]))

    assert not re.search(r"(src|href|url)\s*[=(]", page)
    assert page.count("best</span>") == 1
    assert page.count("baseline</span>") == 1
    assert "&lt;no&gt; | leaf" in page
    assert "<no>" not in page
    assert "prefers-color-scheme: dark" in page


def test_names_of_users_are_no_html() -> None:
    jobs = [row("<script>alert(1)</script>", n, **{"<b>": n, "c": n, "d": n}) for n in range(2)]

    page = report_page(made(jobs))

    assert "<script" not in page
    assert "<h3><b></h3>" not in page
    assert "<h3>&lt;b&gt;</h3>" in page


def test_a_report_of_ten_thousand_jobs_is_made_within_ten_seconds() -> None:
    jobs = [row(f"job{n}", n % 977, a=n % 100, b=n // 100) for n in range(10_000)]
    began = time.process_time()

    report = made(jobs)
    page = report_page(report)
    text, table = report_text(report), summary_csv(report)

    assert "9,500 more jobs are in summary.csv" in page
    assert "9,900 more are in summary.csv" in text
    assert table.count("\n") == 10_001
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (3.0, "3"), (1234567.0, "1,234,567"), (0.123456, "0.1235"), (-2, "-2")],  # noqa: RUF001
)
def test_numbers_are_short_for_people(value: float | None, text: str) -> None:
    assert number_text(value) == text


def test_differences_and_sizes_are_short_for_people() -> None:
    assert [delta_text(one) for one in (None, 0, 0.5, -2)] == ["", "±0", "+0.5", "−2"]  # noqa: RUF001
    assert [size_text(one) for one in (12, 1200, 67_300_000, 3e9)] == [
        *("12 B", "1.2 KB", "67.3 MB", "3.0 GB"),
    ]


REPEATS = [
    replace(row(f"{name}_r{n}", value, leaf=leaf, seed=n), setting=name)
    for name, leaf, values in (("few", 20, (0.4, 0.6)), ("many", 50, (0.2, 0.9)))
    for n, value in enumerate(values, 1)
]


def test_settings_are_ranked_by_the_mean_over_their_repeats() -> None:
    lone, died = row("base", 0.5), replace(REPEATS[0], name="few_r3", is_ok=False)
    report = made([*REPEATS, died, lone])

    settings = settings_of(report)

    assert [(one.name, one.ok, len(one.rows)) for one in settings] == [
        ("many", 2, 2),
        ("few", 2, 3),
        ("base", 1, 1),
    ]
    many = settings[0].spread("score")
    assert many is not None
    assert (many.mean, many.deviation) == (pytest.approx(0.55), pytest.approx(0.49497, abs=1e-5))
    assert verdict(report) == (
        "many has the highest mean of score: 0.55 ± 0.49 over 2 repeats (+0.05 against base)."
    )
    assert settings_of(made(GRID)) == []


def test_a_baseline_with_repeats_is_their_mean() -> None:
    report = made(REPEATS, baseline="few")

    assert [report.delta(one, "score") for one in REPEATS] == [
        *(None, None, pytest.approx(-0.3), pytest.approx(0.4)),
    ]


def test_mean_and_deviation_over_repeats_are_in_every_form() -> None:
    report = made(REPEATS)

    rows = list(csv.DictReader(io.StringIO(summary_csv(report))))
    text, page = report_text(report), report_page(report)

    assert [(one["job"], one["setting"], one["score_mean"][:4]) for one in rows] == [
        *(("many_r2", "many", "0.55"), ("few_r2", "few", "0.5")),
        *(("few_r1", "few", "0.5"), ("many_r1", "many", "0.55")),
    ]
    assert "| **many** (best) | 50 | 2/2 | 0.55 ± 0.49 |" in text
    assert "0.55 ± 0.49" in page
    assert page.count("best</span>") == 1


def asked(took_s: float, waited_s: float, error: str = "", **output: Any) -> Outcome:
    tries = [Attempt(1, 0.0, 0.5, error=ItemError(error, "no"))] if error else []
    call = Attempt(2, 0.0, took_s, waited_s, usage=Usage(1, 100, 20, 5_000), model="m")
    return Outcome("i", 0, State.OK, output, attempts=(*tries, call), usage=call.usage,
                   started_at=10.0, ended_at=10.0 + took_s)  # fmt: skip


def test_the_latency_of_a_call_leaves_out_the_wait_for_its_turn() -> None:
    step = StepFigures("ask", wanted=("confidence",))

    for outcome in (asked(5.0, 4.0, confidence=0.5), asked(2.0, 0.0, "rate_limit", n=1)):
        step.add(outcome)

    assert (step.latencies, step.waited_s, step.durations) == ([1.0, 2.0], 4.0, [5.0, 2.0])
    assert (dict(step.causes), dict(step.models)) == ({"rate_limit": 1}, {"m": 2})
    assert (step.metrics, step.summary.retries) == ({"confidence": [0.5]}, 1)


def test_a_run_of_calls_has_their_latencies_retries_metrics_and_cost() -> None:
    steps = [StepFigures(name, wanted=("confidence",)) for name in ("draft", "grade")]
    for number in range(40):
        steps[0].add(asked(1 + number / 10, 0.5, confidence=number / 40))
        steps[1].add(asked(3.0, 0.0, "timeout" if number < 3 else "", confidence=0.5))
    moments = [float(n) for n in range(80)]
    tokens = [(at, 120) for at in moments]

    report = made([], steps=steps, ended_at=moments, tokens_at=tokens, worked_s=80.0, metrics=[])
    page, text = report_page(report), report_text(report)

    for words in ("Latency of calls, <wbr>", "Items a minute", "Cost by step", "3 timeout"):
        assert words.replace("<wbr>", "") in page.replace("<wbr>", ""), words
    assert "| draft | confidence | 40 | 0.4875 ± 0.29 |" in text
    assert "- grade: 3 timeout" in text
    assert "- time: 1m 20s, 60 items/min" in text
    steps_csv = list(csv.DictReader(io.StringIO(summary_csv(report))))
    assert (steps_csv[1]["call_p50_s"], steps_csv[0]["confidence_mean"]) == ("3.0", "0.4875")


def test_throughput_is_told_a_minute() -> None:
    seen = flow([(100.0 + n, 2.0) for n in range(121)])

    assert seen is not None
    assert (seen.span_s, round(seen.mean), len(seen.bars)) == (120.0, 121, 60)
    assert flow([(5.0, 1.0)] * 9) is None


def test_a_long_tail_is_in_the_last_bar() -> None:
    bars = histogram([0.5, *range(10), 1000.0], most=10.5)

    assert sum(bar.count for bar in bars) == 12
    assert bars[-1].high == pytest.approx(10.5)
