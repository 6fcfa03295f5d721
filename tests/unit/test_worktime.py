from __future__ import annotations

from pathlib import Path

import pytest

from batchq.outcome import Outcome, State
from batchq.plan import InputSpec, OutputSpec, Pacing, Plan, StepPlan, StepSpec, Tolerance
from batchq.store import RunFolder
from batchq.store.worktime import note_resume, worked_s

STEP = StepPlan(
    spec=StepSpec(1, "s", ()), input=InputSpec("in.json"), output=OutputSpec("a.json"),
    pacing=Pacing(), queue="cpu", needs=(), tolerance=Tolerance(), items=4,
    items_are_estimated=False, batches=2, calls=0, input_tokens=0, output_tokens=0, cost_usd=None,
    duration_s=0, bound_by="",
)  # fmt: skip
NIGHT = 8 * 3600.0
SUBMITTED = 1000.0


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.open(str(tmp_path / "v0"))
    made.write_plan(Plan("w", "words", {}, "draft", "", "o", "m.yaml", ".", {}, (STEP,), {}))
    return made


def test_a_run_works_from_its_submit_to_its_end(folder: RunFolder) -> None:
    assert worked_s(folder, SUBMITTED, SUBMITTED + 30) == 30

    folder.append_log("run completed", at=SUBMITTED + 40)

    assert worked_s(folder, SUBMITTED, SUBMITTED + NIGHT) == 40


def test_the_night_between_a_pause_and_a_resume_does_not_count(folder: RunFolder) -> None:
    folder.append_log("run paused", at=SUBMITTED + 10)
    folder.append_log("run paused", at=SUBMITTED + 11)  # a second look at the same pause

    before = note_resume(folder, SUBMITTED, SUBMITTED + NIGHT)
    after = worked_s(folder, SUBMITTED, SUBMITTED + NIGHT + 7)

    assert (before, after) == (10, 17)


def test_a_run_that_was_killed_worked_until_its_last_batch(folder: RunFolder) -> None:
    last = Outcome("a", 0, State.OK, started_at=SUBMITTED + 2, ended_at=SUBMITTED + 12)
    folder.write_batch(1, 0, [last], OutputSpec("a.json"))

    before = note_resume(folder, SUBMITTED, SUBMITTED + NIGHT)
    again = note_resume(folder, SUBMITTED, SUBMITTED + 2 * NIGHT)  # killed at once

    assert (before, again) == (12, 12)


def test_a_run_that_was_killed_before_it_did_anything_has_not_worked(folder: RunFolder) -> None:
    assert note_resume(folder, SUBMITTED, SUBMITTED + NIGHT) == 0
