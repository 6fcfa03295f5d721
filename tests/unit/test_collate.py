from __future__ import annotations

from batchq.engine.collate import allowed_failures, batch_count, ready_steps, room_for
from batchq.plan import (
    InputSpec,
    OutputSpec,
    Pacing,
    StepPlan,
    StepSpec,
    Tolerance,
)


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
