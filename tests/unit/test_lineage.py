from __future__ import annotations

from batchq.engine.lineage import redo_steps
from batchq.plan import (
    InputSpec,
    OutputSpec,
    Pacing,
    Plan,
    Redo,
    StepPlan,
    StepSpec,
    Tolerance,
)


def step(number: int, source: str = "", *, needs: tuple[str, ...] = (), collate: str = "", **more):
    return StepPlan(
        spec=StepSpec(number, f"s{number}", ()),
        input=InputSpec(source, **more),
        output=OutputSpec("x.json", collate=collate),
        pacing=Pacing(),
        queue="llm",
        needs=needs or ((f"s{number - 1}",) if number > 1 and not source else ()),
        tolerance=Tolerance(),
        items=1,
        items_are_estimated=False,
        batches=1,
        calls=1,
        input_tokens=0,
        output_tokens=0,
        cost_usd=None,
        duration_s=0,
        bound_by="",
    )


def plan(*steps: StepPlan) -> Plan:
    return Plan("p", "p", {}, "draft", "", "outputs", "m.yaml", ".", {}, steps, {})


def test_the_chosen_items_flow_through_the_steps_that_follow():
    redo = redo_steps(plan(step(1, "a.json"), step(2), step(3)), {1: [4, 7]})

    assert redo == {1: Redo("some", 1), 2: Redo("some", 1), 3: Redo("some", 1)}


def test_a_step_that_sees_the_whole_input_is_redone_and_so_is_all_after_it():
    redo = redo_steps(plan(step(1, "a.json"), step(2, whole=True), step(3)), {1: [4]})

    assert [one.kind for one in redo.values()] == ["some", "all", "all"]


def test_a_step_after_a_collate_function_is_redone_entirely():
    redo = redo_steps(plan(step(1, "a.json", collate="m:f"), step(2)), {1: [4]})

    assert [one.kind for one in redo.values()] == ["some", "all"]


def test_a_step_with_another_input_is_taken_over():
    steps = plan(step(1, "a.json"), step(2, "b.json"), step(3, needs=("s1",)), step(4))

    redo = redo_steps(steps, {1: [4]})

    assert [one.kind for one in redo.values()] == ["some", "none", "some", "some"]


def test_an_item_of_a_later_input_leaves_the_steps_before_alone():
    redo = redo_steps(plan(step(1, "a.json"), step(2, "b.json"), step(3)), {2: [0]})

    assert redo == {1: Redo("none", 1), 2: Redo("some", 2), 3: Redo("some", 2)}


def test_a_step_that_lost_track_of_items_is_redone_by_its_own_if_nothing_before_it_is():
    steps = plan(step(1, "a.json", collate="m:f"), step(2), step(3, whole=True), step(4))

    own = redo_steps(steps, {2: [5], 3: [0]})
    alone = redo_steps(steps, {3: [0]})
    after = redo_steps(steps, {1: [4], 3: [0]})

    assert [own[2], own[3]] == [Redo("some", 2), Redo("all", 2)]
    assert list(alone.values()) == [
        Redo("none", 1), Redo("none", 1), Redo("all", 3), Redo("all", 3),
    ]  # fmt: skip
    assert [one.kind for one in after.values()] == ["some", "all", "all", "all"]
