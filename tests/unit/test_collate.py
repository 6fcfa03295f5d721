from __future__ import annotations

import pytest

from batchq.collate import (
    MAX_DISPATCHES,
    Fate,
    allowed_failures,
    batch_count,
    judge_batch,
    lost_items,
    ready_steps,
    room_for,
)
from batchq.outcome import Outcome, State
from batchq.plan import (
    InputSpec,
    Item,
    OutputSpec,
    Pacing,
    StepPlan,
    StepSpec,
    Tolerance,
)
from batchq.ports import Lease, RunState

ITEMS = [Item(str(index), index, {}) for index in range(3)]


def outcomes(*indexes: int) -> list[Outcome]:
    return [Outcome(str(index), index, State.OK) for index in indexes]


def step(number: int, name: str, needs: tuple[str, ...] = (), pacing: Pacing | None = None):
    return StepPlan(
        spec=StepSpec(number, name, ()),
        input=InputSpec(),
        output=OutputSpec(f"{name}.json"),
        pacing=pacing or Pacing(),
        queue="llm",
        needs=needs,
        tolerance=Tolerance(),
        items=3,
        items_are_estimated=False,
        batches=1,
        calls=3,
        input_tokens=0,
        output_tokens=0,
        cost_usd=None,
        duration_s=0,
        bound_by="",
    )


def test_a_batch_with_every_outcome_is_collated_whatever_the_state():
    for state in RunState:
        assert judge_batch(ITEMS, outcomes(0, 1, 2), state, 1).fate is Fate.COLLATE


def test_items_lost_on_the_way_are_sent_again():
    verdict = judge_batch(ITEMS, outcomes(1), RunState.RUNNING, 1)

    assert verdict.fate is Fate.AGAIN
    assert [item.id for item in verdict.missing] == ["0", "2"]


def test_a_batch_that_keeps_losing_items_is_given_up():
    verdict = judge_batch(ITEMS, outcomes(1), RunState.RUNNING, MAX_DISPATCHES)

    assert verdict.fate is Fate.GIVE_UP


@pytest.mark.parametrize("state", [RunState.PAUSED, RunState.CANCELLED, RunState.FAILED])
def test_an_incomplete_batch_of_a_stopped_run_is_parked(state):
    assert judge_batch(ITEMS, outcomes(1), state, 1).fate is Fate.PARK


def test_an_item_whose_process_is_dead_is_lost_and_one_that_runs_is_not():
    leases = {0: Lease("dead", 1), 1: Lease("alive", 1)}

    found = lost_items(ITEMS, leases, {"alive"}, has_passed=False)

    assert [item.id for item in found] == ["0"]


def test_an_item_that_nobody_started_is_lost_once_the_queue_is_empty():
    found = lost_items(ITEMS, {1: Lease("alive", 1)}, {"alive"}, has_passed=True)

    assert [item.id for item in found] == ["0", "2"]


def test_a_step_has_room_for_its_window_of_batches():
    plan = step(1, "a", pacing=Pacing(concurrent_batches=4))

    assert room_for(plan, {5, 6}, 0, 100).batches == 2
    assert room_for(plan, {5, 6, 7, 8}, 0, 100).batches == 0


def test_a_delay_lets_one_batch_out_at_a_time():
    plan = step(1, "a", pacing=Pacing(concurrent_batches=4, batch_delay_s=5))

    assert room_for(plan, set(), last_at=0, now=100).batches == 1
    waiting = room_for(plan, {0}, last_at=98, now=100)
    assert waiting.batches == 0
    assert waiting.wait_s == 3


def test_a_step_is_ready_when_all_it_needs_is_done():
    steps = [step(1, "a"), step(2, "b", ("a",)), step(3, "c", ("a",)), step(4, "d", ("b", "c"))]

    assert [one.spec.name for one in ready_steps(steps, {1})] == ["b", "c"]
    assert [one.spec.name for one in ready_steps(steps, {1, 2, 3})] == ["d"]


def test_the_stricter_of_count_and_share_bounds_the_failures():
    assert allowed_failures(Tolerance(), 100) is None
    assert allowed_failures(Tolerance(max_failures=7, max_failure_share=0.05), 100) == 5
    assert allowed_failures(Tolerance(max_failures=0), 100) == 0


def test_batches_cover_all_items():
    assert [batch_count(items, 50) for items in (0, 1, 50, 51)] == [0, 1, 1, 2]
