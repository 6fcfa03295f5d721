"""Makes a rerun: a new version in which chosen items are done again, the rest taken over."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from batchq.endpoint import CacheSpec
from batchq.engine.lineage import redo_steps
from batchq.errors import PlanError, RunNotFound, TaskError, UsageError
from batchq.plan import Item, Plan, Redo, Rerun, StageSpec, StepPlan
from batchq.ports import RunInfo
from batchq.runs.life import create_version, open_folder
from batchq.services import Services
from batchq.store import RunFolder
from batchq.store.marks import Verdict, marks_of
from batchq.store.search import select_ids, select_indexes
from batchq.text.conditions import compile_condition, evaluate
from batchq.text.prompts import flatten, unknown_name

Chosen = dict[int, list[Item]]
"""The items to be redone, by the number of the step that they are of.

That is the step with an input of its own; a later one only if no item before it is redone, as for a
step that saw all items at once and failed.
"""


def roots_of(plan: Plan) -> list[int]:
    """The numbers of the steps that have an input of their own."""
    return [step.spec.number for step in plan.steps if step.input.source]


def choose_ids(base: RunInfo, ids: Collection[str]) -> Chosen:
    """Finds items by their ids; raises RunNotFound with the nearest ids for one that is unknown."""
    folder = open_folder(base.folder)
    wanted = set(ids)
    chosen: Chosen = {}
    roots = roots_of(base.plan)
    for root in roots:
        if items := [*select_ids(folder, root, wanted)]:
            chosen[root] = items
    unknown = sorted(wanted - {item.id for items in chosen.values() for item in items})
    if unknown:
        seen = [item.id for root in roots for item in folder.all_items(root)]
        near = difflib.get_close_matches(unknown[0], seen, n=3, cutoff=0.5)
        hint = f"nearest: {', '.join(near)}" if near else f"ids are such as {', '.join(seen[:5])}"
        name = f"{base.pipeline}@{base.version}"
        raise RunNotFound(f"{name} has no item `{unknown[0]}`; {hint}")
    return chosen


def choose_failed(base: RunInfo) -> Chosen:
    """Finds the items that failed in any step.

    Of a step that saw all items at once these are its own, unless it runs again anyway.
    """
    folder = open_folder(base.folder)
    failed = {
        step.spec.number: {one.index: one.item_id for one in folder.failed_lines(step.spec.number)}
        for step in base.plan.steps
    }
    kinds = redo_steps(base.plan, {root: [0] for root in roots_of(base.plan)})
    apart = {number for number, redo in kinds.items() if redo.kind == "all" and redo.root != number}
    tracked = {number: {*found} for number, found in failed.items() if number not in apart}
    chosen = _by_index(folder, kinds, tracked)
    for number in sorted(apart):
        redone = redo_steps(base.plan, _indexes(chosen))
        if failed[number] and redone[number].kind == "none":
            chosen[number] = [Item(name, index, None) for index, name in failed[number].items()]
    return chosen


def choose_marked(base: RunInfo, verdict: Verdict) -> Chosen:
    """Finds the items that `batchq mark` was told to be good, or bad."""
    marks = marks_of(open_folder(base.folder))
    return choose_ids(base, [item for item, mark in marks.items() if mark.verdict is verdict])


def choose_where(base: RunInfo, condition: str) -> Chosen:
    """Finds the items for whose last output a condition holds, such as `confidence < 0.5`.

    The condition is of the small language of `when:`; it is asked of the last step in which items
    still are what they were in the input. Raises UsageError for a condition that cannot be asked.
    """
    try:
        compile_condition(condition)
    except ValueError as error:
        raise UsageError(f"--where {condition}: {error}") from error
    folder = open_folder(base.folder)
    every = {root: [0] for root in roots_of(base.plan)}
    kinds = redo_steps(base.plan, every)
    steps = [number for number, redo in kinds.items() if redo.kind == "some"]
    if not steps:
        raise UsageError("--where needs a step with one output an item")
    missing = {*compile_condition(condition).names}
    known: dict[str, None] = {}
    found = set()
    try:
        for index, row in folder.collated_rows(steps[-1]):
            if missing:  # a row may lack a field, but one that all rows lack is a slip
                known |= dict.fromkeys(flatten(row))
                missing -= known.keys()
            if evaluate(condition, row):
                found.add(index)
        if missing and known:
            raise unknown_name(sorted(missing)[0], known)
    except TaskError as error:
        raise UsageError(f"--where {condition}: {error}") from error
    return _by_index(folder, kinds, {steps[-1]: found})


def _by_index(
    folder: RunFolder, kinds: Mapping[int, Redo], found: Mapping[int, set[int]]
) -> Chosen:
    """The items that indexes stand for, in the steps that have an input of their own."""
    indexes: dict[int, set[int]] = {}
    for number, places in found.items():
        if places:
            indexes.setdefault(kinds[number].root, set()).update(places)
    return {root: [*select_indexes(folder, root, places)] for root, places in indexes.items()}


def _indexes(chosen: Chosen) -> dict[int, tuple[int, ...]]:
    return {root: tuple(item.index for item in items) for root, items in chosen.items()}


def create_rerun(
    base: RunInfo,
    chosen: Chosen,
    services: Services,
    *,
    now: float,
    plan: Plan | None = None,
    lock_text: str | None = None,
    status: str | None = None,
    note: str = "",
) -> RunInfo:
    """Makes the next version: `chosen` is redone, the rest is that of `base`.

    It runs by the plan that is frozen in `base`, or by another one of the same steps (a changed
    prompt). Raises UsageError if nothing is chosen, PlanError if the steps differ.
    """
    if not any(chosen.values()):
        raise UsageError(f"{base.pipeline}@{base.version}: no item is to be redone")
    plan = _fitting(base.plan, plan or base.plan)
    # A rerun is made because of the answers that there are: the cache would give them again.
    plan = replace(_asked_anew(plan), status=status or plan.status, notes=note)
    indexes = _indexes(chosen)
    rerun = Rerun(base.version, base.folder, indexes, redo_steps(plan, indexes))

    def fill(folder: RunFolder) -> None:
        folder.write_rerun(rerun)
        folder.write_lock(lock_text or open_folder(base.folder).read_lock())
        for root in roots_of(plan):
            folder.freeze_items(root, iter(chosen.get(root, ())))

    return create_version(
        _counted(plan, chosen), fill, services, now=now, mode="rerun", base_version=base.version
    )


def _fitting(before: Plan, plan: Plan) -> Plan:
    was, now = ([step.spec.name for step in one.steps] for one in (before, plan))
    if was != now:
        raise PlanError(
            f"the steps are {', '.join(now)}, those of the version before are {', '.join(was)}: "
            "a rerun needs the same steps; submit the manifest as a new version instead"
        )
    # Its items are those of the version before, wherever the manifest takes them from today.
    steps = tuple(
        replace(step, input=old.input) if old.input.source else step
        for step, old in zip(plan.steps, before.steps, strict=True)
    )
    hashes = {name: value for name, value in plan.hashes.items() if not _is_input(name)}
    hashes |= {name: value for name, value in before.hashes.items() if _is_input(name)}
    return replace(plan, pipeline=before.pipeline, steps=steps, hashes=hashes)


def _is_input(name: str) -> bool:
    return name.startswith("input:")


def _counted(plan: Plan, chosen: Chosen) -> Plan:
    total = sum(map(len, chosen.values()))
    steps = tuple(
        replace(step, items=total if not number else step.items)
        for number, step in enumerate(plan.steps)
    )
    return replace(plan, steps=steps)


def in_words(chosen: Chosen, limit: int = 8) -> str:
    """The ids of the chosen items, for a preview."""
    ids: Sequence[str] = [item.id for items in chosen.values() for item in items]
    shown = ", ".join(ids[:limit])
    return shown if len(ids) <= limit else f"{shown} and {len(ids) - limit} more"


def _asked_anew(plan: Plan) -> Plan:
    """The same plan, taking no answer from the cache: new ones take the place of those in it."""

    def in_stage(stage: StageSpec) -> StageSpec:
        if stage.provider is None or stage.provider.cache is None:
            return stage
        return replace(stage, provider=replace(stage.provider, cache=CacheSpec(max_age_s=0.0)))

    def in_step(step: StepPlan) -> StepPlan:
        return replace(step, spec=replace(step.spec, stages=tuple(map(in_stage, step.spec.stages))))

    return replace(plan, steps=tuple(map(in_step, plan.steps)))
