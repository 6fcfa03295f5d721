"""Decides item by item what a submit runs and what it takes from the version before, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from batchq.outcome import Json
from batchq.plan import Item, Plan, Redo, Rerun, StepPlan
from batchq.planning.changes import selection_changes, short_hash, work_changes
from batchq.planning.planner import iter_items
from batchq.ports import RunInfo
from batchq.ranges import is_within, ranges
from batchq.runs.life import create_version
from batchq.runs.places import placed_items
from batchq.runs.versions import Version
from batchq.services import Services
from batchq.store import RunFolder
from batchq.store.basis import merged
from batchq.store.search import read_names

Ask = Callable[[StepPlan, Sequence[Json]], list[bool]]
"""Says of items of a step whether their answers are all kept, so that they cost no call."""

ASKED_AT_ONCE = 500


class Because(StrEnum):
    """Why an item runs, or does not."""

    TAKEN_OVER = "taken_over"  # its output is in the version before
    CACHED = "cached"  # its answers are kept
    NEW = "never_ran"
    FAILED = "failed"
    UNFINISHED = "not_finished"
    INPUT = "input_changed"
    WORK = "work_changed"  # prompt, model, options, schema, ...
    BEFORE = "runs_before"  # its input is made anew by a step before
    AGAIN = "runs_again"  # nothing changed, and nobody asked to skip it


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one item of a step, and why in people's words."""

    item_id: str
    index: int
    because: Because
    reason: str

    @property
    def is_reused(self) -> bool:
        """Whether nothing is paid for it."""
        return self.because in (Because.TAKEN_OVER, Because.CACHED)


@dataclass
class StepReview:
    """The decisions about the items of a step.

    `unknown` counts items that nobody can tell of before the step before is done. `redo` is what
    a new version does in this step, `places` the indexes that ids had in the version before.
    """

    step: StepPlan
    decisions: list[Decision] = field(default_factory=list)
    unknown: int = 0
    redo: Redo = field(default_factory=lambda: Redo("all", 1))
    kept: tuple[tuple[int, int], ...] | None = None
    places: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_touched(self) -> bool:
        """Whether its output differs from that of the version before."""
        return self.redo.kind != "none" or self.kept is not None

    @property
    def running(self) -> set[int]:
        """The indexes of the items that are not taken over."""
        return {one.index for one in self.decisions if one.because is not Because.TAKEN_OVER}

    def counts(self) -> Counter[Because]:
        """How many items there are of each kind."""
        return Counter(one.because for one in self.decisions)


@dataclass(frozen=True)
class Review:
    """What a submit would do. `base` is the version that is compared with, if there is one.

    `problem` says why there is none where there should be one.
    """

    plan: Plan
    base: Version | None
    steps: tuple[StepReview, ...]
    problem: str = ""

    @property
    def takes_over(self) -> bool:
        """Whether anything is taken from `base`."""
        return any(step.redo.kind != "all" for step in self.steps)

    @property
    def is_idle(self) -> bool:
        """Whether the version before has all of it."""
        return not any(step.is_touched for step in self.steps)


def review_plan(plan: Plan, base: Version | None, *, ask: Ask | None = None) -> Review:
    """Compares a plan with the newest version, and with the kept answers if `ask` is given."""
    reviewer = _Reviewer(plan, base, ask)
    return Review(plan, base, tuple(reviewer.review(step) for step in plan.steps))


@dataclass
class _Fates:
    """What became of the items of one step in a version, by index."""

    ok: set[int]
    failed: dict[int, str]

    def word(self, index: int, version: str) -> tuple[Because, str]:
        if index in self.failed:
            return Because.FAILED, f"failed in {version}: {self.failed[index]}"
        if index in self.ok:
            return Because.AGAIN, f"ok in {version}; runs again without skip_existing"
        return Because.UNFINISHED, f"has no output in {version}"


class _Decisions:
    """Collects the decisions about items, and asks for the kept answers of many at a time."""

    def __init__(self, step: StepPlan, ask: Ask | None) -> None:
        self._step = step
        self._ask = ask
        self._made: list[Decision] = []
        self._open: list[tuple[int, Json]] = []

    def add(self, decision: Decision, data: Json) -> None:
        self._made.append(decision)
        if self._ask is not None and decision.because is not Because.TAKEN_OVER:
            self._open.append((len(self._made) - 1, data))
            if len(self._open) == ASKED_AT_ONCE:
                self._settle()

    def all(self) -> list[Decision]:
        self._settle()
        return self._made

    def _settle(self) -> None:
        if self._ask is None or not self._open:
            return
        answered = self._ask(self._step, [data for _, data in self._open])
        for (place, _), is_kept in zip(self._open, answered, strict=True):
            if is_kept:
                one = self._made[place]
                self._made[place] = replace(one, because=Because.CACHED, reason="cached answer")
        self._open = []


class _Reviewer:
    def __init__(self, plan: Plan, base: Version | None, ask: Ask | None) -> None:
        self.plan = plan
        self.base = base
        self.ask = ask
        self.folder: RunFolder | None = base.folder if base else None
        self.numbers = {step.spec.name: step.spec.number for step in plan.steps}
        self.done: dict[int, StepReview] = {}
        self.fits = base is not None and [*self.numbers] == [
            step.spec.name for step in base.plan.steps
        ]

    def review(self, step: StepPlan) -> StepReview:
        found = self._of_input(step) if step.input.source else self._of_chain(step)
        self.done[step.spec.number] = found
        return found

    def _of_input(self, step: StepPlan) -> StepReview:
        number = step.spec.number
        base, folder = self.base, self.folder
        if (
            base is None
            or folder is None
            or not self.fits
            or not base.plan.step(number).input.source
        ):
            reason = "never ran" if base is None else f"{base.version} has other steps"
            made = _Decisions(step, self.ask)
            for item in iter_items(self.plan, number):
                made.add(Decision(item.id, item.index, Because.NEW, reason), item.data)
            return StepReview(step, made.all(), redo=Redo("all", number))
        before = base.plan.step(number)
        changes = work_changes(before, step)
        if before.input.whole != step.input.whole:
            changes.append("batch_mode changed")
        fates = self._fates(number)
        old = iter(folder.all_items(number))
        at = next(old, None)
        made, missing = _Decisions(step, self.ask), 0
        known = {name: index for index, name in self._names(number)}
        for item in placed_items(self.plan, number, known):
            while at is not None and at.index < item.index:
                missing += 1
                at = next(old, None)
            was = at if at is not None and at.index == item.index else None
            if was is not None:
                at = next(old, None)
            made.add(self._decide(step, item, was, known, changes, fates), item.data)
        missing += (at is not None) + sum(1 for _ in old)
        found = self._concluded(step, made.all(), gone=bool(missing), all_of_it=bool(changes))
        found.places = known
        return found

    def _decide(
        self,
        step: StepPlan,
        item: Item,
        was: Item | None,
        known: Mapping[str, int],
        changes: list[str],
        fates: _Fates,
    ) -> Decision:
        assert self.base is not None
        version = self.base.version
        if was is None or was.id != item.id:
            if item.id in known and known[item.id] != item.index:
                because, reason = (
                    Because.INPUT,
                    f"its place changed {known[item.id]} -> {item.index}",
                )
            else:
                because, reason = Because.NEW, f"never ran: not in {version}"
        elif was.data != item.data:
            because = Because.INPUT
            reason = f"input changed {short_hash(was.data)} -> {short_hash(item.data)}"
        elif changes:
            because, reason = Because.WORK, "; ".join(changes)
        else:
            because, reason = fates.word(item.index, version)
            if because is Because.AGAIN and step.skip_existing:
                because, reason = Because.TAKEN_OVER, f"taken over from {version}"
        return Decision(item.id, item.index, because, reason)

    def _of_chain(self, step: StepPlan) -> StepReview:
        number = step.spec.number
        parent = self.done[self.numbers[step.needs[-1]]]
        base = self.base
        nothing = Redo("all", number)
        if base is None or not self.fits or not step.skip_existing or parent.redo.kind == "all":
            return StepReview(step, unknown=step.items, redo=nothing)
        before = base.plan.step(number)
        changes = work_changes(before, step)
        if selection_changes(before, step) or before.input.source:
            changes.append("its input changed")
        loses_track = step.input.whole or bool(parent.step.output.collate)
        if loses_track and parent.is_touched:
            return StepReview(step, unknown=step.items, redo=nothing)
        fates = self._fates(number)
        upstream = set() if loses_track else parent.running
        decisions = []
        seen = set()
        for index, item_id in self._names(number):
            seen.add(index)
            if index in upstream:
                reason = f"step {parent.step.spec.name} makes its input anew"
                decisions.append(Decision(item_id, index, Because.BEFORE, reason))
            elif changes:
                decisions.append(Decision(item_id, index, Because.WORK, "; ".join(changes)))
            else:
                because, reason = fates.word(index, base.version)
                if because is Because.AGAIN:
                    because, reason = Because.TAKEN_OVER, f"taken over from {base.version}"
                decisions.append(Decision(item_id, index, because, reason))
        new = [one for one in parent.decisions if one.index in upstream - seen]
        decisions += [
            Decision(one.item_id, one.index, Because.BEFORE, "its input is new") for one in new
        ]
        if parent.kept is not None and not loses_track:
            decisions = [one for one in decisions if is_within(one.index, parent.kept)]
        found = self._concluded(step, decisions, gone=False, all_of_it=bool(changes))
        found.kept = None if loses_track or found.redo.kind == "all" else parent.kept
        return found

    def _concluded(
        self, step: StepPlan, decisions: list[Decision], *, gone: bool, all_of_it: bool
    ) -> StepReview:
        """Says what the decisions make of the step; `gone`: the version before has more items."""
        number = step.spec.number
        found = StepReview(step, sorted(decisions, key=lambda one: one.index))
        running = len(found.running)
        if all_of_it or not step.skip_existing or running == len(decisions):
            found.redo = Redo("all", number)
        else:
            found.redo = Redo("some" if running else "none", number)
            found.kept = ranges(one.index for one in found.decisions) if gone else None
        return found

    def _fates(self, number: int) -> _Fates:
        fates = _Fates(set(), {})
        assert self.folder is not None
        for line in self.folder.merged_lines(number):
            if line.is_ok:
                fates.ok.add(line.index)
            else:
                error = line.outcome.error
                fates.failed[line.index] = error.kind if error else "unknown"
        return fates

    def _names(self, number: int) -> list[tuple[int, str]]:
        """Index and id of a step's items in the version before and in those it builds on."""
        assert self.folder is not None
        named = merged(
            self.folder,
            lambda one: (Item(name, index, None) for index, name in read_names(one, number)),
            number,
        )
        return [(item.index, item.id) for item in named]


def create_takeover(review: Review, lock_text: str, services: Services, *, now: float) -> RunInfo:
    """Makes the next version: what the review says is run, everything else is that of its base."""
    base = review.base
    assert base is not None  # something is taken over
    numbers = [step.step.spec.number for step in review.steps]
    by_number = dict(zip(numbers, review.steps, strict=True))
    rerun = Rerun(
        base.version,
        base.folder.url,
        chosen={
            number: tuple(sorted(by_number[number].running))
            for number in numbers
            if by_number[number].redo.kind == "some"
        },
        redo={number: by_number[number].redo for number in numbers},
        kept={number: kept for number in numbers if (kept := by_number[number].kept) is not None},
    )

    def fill(folder: RunFolder) -> None:
        folder.write_rerun(rerun)
        folder.write_lock(lock_text)
        for number in numbers:
            step = by_number[number]
            if step.step.input.source:
                running = step.running
                items = placed_items(review.plan, number, step.places)
                folder.freeze_items(number, (one for one in items if one.index in running))

    return create_version(
        scaled_plan(review), fill, services, now=now, mode="rerun", base_version=base.version
    )


def scaled_plan(review: Review) -> Plan:
    """The plan with the numbers of what is run and paid."""
    return replace(review.plan, steps=tuple(map(_scaled, review.steps)))


def _scaled(review: StepReview) -> StepPlan:
    step, total = review.step, len(review.decisions)
    if review.unknown or not total:
        return step
    items, terms = len(review.running), step.uploads
    paid = sum(not one.is_reused for one in review.decisions) / total
    return replace(
        step,
        items=items,
        batches=-(-items // step.pacing.batch_size),
        calls=round(step.calls * paid),
        input_tokens=round(step.input_tokens * paid),
        output_tokens=round(step.output_tokens * paid),
        cost_usd=None if step.cost_usd is None else step.cost_usd * paid,
        duration_s=round(step.duration_s * (paid if terms is None else 1), 1),
        uploads=terms and terms.of_share(paid),
    )
