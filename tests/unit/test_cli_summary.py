from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from batchq.actions.exits import INTERRUPTED, exit_code
from batchq.actions.views import Pace, PlainView, pace_text
from batchq.cli.output import duration, money, table
from batchq.cli.summary import as_json, summary_lines
from batchq.engine.canary import live_text
from batchq.outcome import Summary, Usage
from batchq.progress import CanaryReport, Progress, RunState, StepProgress

USAGE = Usage(calls=12, input_tokens=3400, output_tokens=900, cost_nusd=20_000_000)


def a_run(state: RunState = RunState.COMPLETED, *, failed: int = 0, reason: str = "") -> Progress:
    summary = Summary(ok=12 - failed, failed=failed, retries=2, usage=USAGE)
    step = StepProgress(1, "generate", "done", 12, 1, 1, summary)
    return Progress("r1", "studio", "v3", state, reason, "", (step,), 0, 100.0, 118.0)


@pytest.mark.parametrize(
    ("progress", "code"),
    [
        (a_run(), 0),
        (a_run(failed=1), 3),
        (a_run(RunState.FAILED, failed=5), 4),
        (a_run(RunState.PAUSED, reason="401: the key is wrong"), 5),
        (a_run(RunState.PAUSED, reason=INTERRUPTED), 130),
        (a_run(RunState.CANCELLED), 130),
    ],
)
def test_the_exit_code_says_how_a_run_ended(progress: Progress, code: int) -> None:
    assert exit_code(progress) == code


def test_the_summary_names_state_counts_cost_and_time() -> None:
    lines = summary_lines(a_run())

    assert lines == [
        "studio@v3  completed  12 ok, 0 failed, 2 retried  in 18.0s",
        "  cost     $0.0200, 12 calls, 3,400 + 900 tokens",
    ]


def test_the_summary_shows_the_files_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v3" / "collated").mkdir(parents=True)
    (tmp_path / "v3" / "collated" / "01_out.json").write_text("[]")
    (tmp_path / "v3" / "01_errors.json").write_text('[{"item_id": "4007"}]')
    (tmp_path / "v3" / "02_errors.json").write_text("[]\n")
    for name in ("summary.csv", "report.html"):
        (tmp_path / "v3" / name).write_text("best")

    lines = summary_lines(replace(a_run(failed=1), folder=str(tmp_path / "v3")))

    assert "  result   v3/collated/01_out.json" in lines
    assert "  errors   v3/01_errors.json" in lines
    assert [line for line in lines if "report" in line] == ["  report   v3/report.html"]
    assert not any("02_errors" in line for line in lines)


def test_a_paused_run_says_why_and_how_to_go_on() -> None:
    lines = summary_lines(a_run(RunState.PAUSED, reason="401: the key is wrong"))

    assert "  reason   401: the key is wrong" in lines
    assert lines[-1] == "  next     batchq resume studio@v3"


def test_calls_without_a_price_are_said() -> None:
    assert money(1.5, 3) == "$1.50 + 3 unpriced calls"


def test_programs_get_the_same_numbers() -> None:
    told = as_json(a_run(failed=1))

    assert told["items"]["failed"] == 1
    assert told["cost_usd"] == 0.02
    assert told["duration_s"] == 18.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (59.94, "59.9s"), (59.96, "1m 00s"), (200, "3m 20s"), (7500, "2h 05m")],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table([("a", "10"), ("long", "2")], "<>") == ["a     10", "long   2"]


def test_the_pace_is_that_of_the_last_seconds() -> None:
    pace = Pace()

    for second in range(100):
        pace.note(float(second), 0 if second < 60 else (second - 60) * 2)

    assert pace.per_s == 2.0
    assert pace.left_s(10) == 5.0


def test_nothing_is_promised_before_the_pace_is_known() -> None:
    pace = Pace()

    pace.note(1.0, 0)

    assert pace.left_s(10) is None


def test_off_a_terminal_a_line_comes_now_and_then_and_at_each_change(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = PlainView()
    running = a_run(RunState.RUNNING)

    for at in (100.0, 101.0, 104.9, 105.1):
        view.show(replace(running, updated_at=at))
    view.show(replace(a_run(), updated_at=105.2))

    assert len(capsys.readouterr().err.splitlines()) == 3


def in_steps(*steps: StepProgress, in_flight: int = 1, now: float = 118.0) -> Progress:
    return Progress("r1", "studio", "v3", RunState.RUNNING, "", "", steps, in_flight, 100.0, now)


def lines_of(capsys: pytest.CaptureFixture[str], *seen: Progress) -> list[str]:
    view = PlainView()
    for progress in seen:
        view.show(progress)
    return [line.partition("@v3 ")[2] for line in capsys.readouterr().err.splitlines()]


def test_each_running_step_tells_of_its_own_items(capsys: pytest.CaptureFixture[str]) -> None:
    done = StepProgress(1, "write", "done", 12, 1, 1, Summary(ok=12))
    review = StepProgress(2, "review", "running", 12, 1, 0, Summary(ok=4, failed=1))
    grade = StepProgress(3, "grade", "running", 12, 1, 0, Summary(ok=2, retries=2))
    waits = StepProgress(4, "report", "waiting", 0, 0, 0, Summary())

    (line,) = lines_of(capsys, in_steps(done, review, grade, waits))

    assert line == "running; [2/4] review 5/12, 1 failed; [3/4] grade 2/12; 2 retried"


def test_the_first_items_of_a_careful_run_are_counted_until_they_are_judged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = StepProgress(1, "write", "running", 12, 1, 0, Summary(ok=2))
    running = replace(in_steps(step), canary_items=3)
    report = CanaryReport("passed", 3, 0, USAGE, 1.5, 9, USAGE, 0.06, 30.0)

    lines = lines_of(capsys, running, replace(running, canary_items=0, canary=report))

    assert "canary: 2 of 3 items first" in lines[0]
    assert "canary" not in lines[1]
    assert live_text(replace(running, canary_items=0, canary=report)).startswith("canary passed: 3")


def test_groups_of_concurrent_batches_are_counted_as_they_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def at(collated: int, clock: float, state: Literal["running", "done"] = "running") -> Progress:
        step = StepProgress(1, "a", state, 90, 18, collated, Summary(ok=5 * collated), window=4)
        return replace(in_steps(step), updated_at=clock)

    looks = (at(0, 10), at(3, 11), at(4, 12), at(8, 12.5), at(17, 14), at(18, 14.1, "done"))
    lines = lines_of(capsys, *looks)

    assert [", ".join(line.partition("; ")[2].split(", ")[:2]) for line in lines] == [
        "a 0/90, Group 1/5",
        "a 20/90, Group 2/5",
        "a 85/90, Group 5/5",
        "a 90/90",
    ]


def test_the_pace_of_one_batch_promises_nothing_for_those_that_are_held_back() -> None:
    pace = Pace()
    pace.note(100.0, 0)
    pace.note(101.0, 10)
    free = StepProgress(1, "a", "running", 30, 3, 1, Summary(ok=10))

    assert pace_text(free, pace) == "10.0/s, about 2.0s left"
    assert pace_text(replace(free, next_batch_at=400.0), pace) == ""


def test_a_run_that_waits_for_its_next_batch_says_so_once_a_minute(
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = StepProgress(1, "a", "running", 30, 3, 1, Summary(ok=10), next_batch_at=400.0)

    lines = lines_of(
        capsys, *[in_steps(step, in_flight=0, now=110.0 + second) for second in range(0, 120, 5)]
    )

    assert [line.partition("; ")[2] for line in lines] == [
        "a 10/30, 1/3 batches, next in 4m 50s",
        "a 10/30, 1/3 batches, next in 3m 50s",
    ]
