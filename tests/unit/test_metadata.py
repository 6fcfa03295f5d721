from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchq.outcome import Summary, Usage
from batchq.plan import (
    InputSpec,
    OutputSpec,
    Pacing,
    Plan,
    StageSpec,
    StepPlan,
    StepSpec,
    Tolerance,
)
from batchq.progress import RunState
from batchq.records import RunRecord
from batchq.store.metadata import describe, summary_in

COUNTS = st.integers(0, 10**9)
SUMMARIES = st.builds(
    Summary, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS,
    st.builds(Usage, COUNTS, COUNTS, COUNTS, st.integers(0, 10**14), COUNTS),
)  # fmt: skip
STEP = StepPlan(
    spec=StepSpec(1, "one", (StageSpec("", "task", task="m:f"),)), input=InputSpec("in.json"),
    output=OutputSpec("out.json"), pacing=Pacing(), queue="cpu", needs=(), tolerance=Tolerance(),
    items=1, items_are_estimated=False, batches=1, calls=0, input_tokens=0, output_tokens=0,
    cost_usd=None, duration_s=1.0, bound_by="cpu",
)  # fmt: skip
PLAN = Plan(
    name="studio", pipeline="studio", labels={}, status="beta", notes="", output_dir="o",
    manifest_path="m.yaml", base_dir=".", params={}, steps=(STEP,), hashes={},
)  # fmt: skip
RECORD = RunRecord(
    "run", "studio", "v0", RunState.COMPLETED, "beta", "", "initial", "", "", "2026-01-20T10:00:00Z"
)


@given(SUMMARIES)
def test_the_figures_of_a_step_are_read_back_to_the_nano_dollar(summary: Summary) -> None:
    told = describe(RECORD, PLAN, {1: summary})

    assert summary_in(told.stats["one"]) == summary


def test_figures_that_people_turned_into_words_count_as_nothing() -> None:
    assert summary_in({"ok": 3, "failed": "some", "cost_usd": None}) == Summary(ok=3)
