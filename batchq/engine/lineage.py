"""Decides what of each step a rerun does again: pure, from the plan and the chosen items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batchq.plan import Plan, Redo, RedoKind


def redo_steps(plan: Plan, chosen: Mapping[int, Sequence[int]]) -> dict[int, Redo]:
    """What a rerun does in each step, by number.

    `chosen` holds, for steps with an input of their own, the indexes of the items to be redone.
    Items flow from step to step under their index, so a step redoes the chosen ones of the step
    its input comes from. A step that sees the whole input, or that follows a collate function,
    is redone entirely if anything before it is: nobody knows which of its items came from which.
    If nothing before it is, items of its own can be chosen.
    """
    redo: dict[int, Redo] = {}
    numbers = {step.spec.name: step.spec.number for step in plan.steps}
    for step in plan.steps:
        number = step.spec.number
        kind: RedoKind
        if step.input.source:
            kind = "all" if step.input.whole else "some"
            redo[number] = Redo(kind if chosen.get(number) else "none", number)
            continue
        before = plan.step(numbers[step.needs[-1]])
        parent = redo[before.spec.number]
        loses_track = step.input.whole or bool(before.output.collate)
        kind = "all" if loses_track and parent.kind != "none" else parent.kind
        redo[number] = Redo(kind, parent.root)
        if kind == "none" and chosen.get(number):
            redo[number] = Redo("all" if step.input.whole else "some", number)
    return redo
