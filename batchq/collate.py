"""Decides what becomes of a batch and what a run does next; pure, so every case can be tested."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from batchq.outcome import Outcome
from batchq.plan import Item, StepPlan, Tolerance
from batchq.ports import LATER, Lease, RunState

MAX_DISPATCHES = 3
"""A batch that came back incomplete this often is closed with what it has."""


class Fate(StrEnum):
    """What becomes of a batch whose chord has ended."""

    COLLATE = "collate"  # every item has an outcome: into the run folder
    AGAIN = "again"  # items were lost on the way: send these again
    GIVE_UP = "give up"  # they were lost every time: they fail, the batch is collated
    PARK = "park"  # the run stands still: keep what there is for a resume


@dataclass(frozen=True, slots=True)
class Verdict:
    """A batch's fate, and the items that have no outcome."""

    fate: Fate
    missing: tuple[Item, ...]


def missing_items(items: Sequence[Item], outcomes: Sequence[Outcome]) -> tuple[Item, ...]:
    """The items that have no outcome."""
    have = {outcome.index for outcome in outcomes}
    return tuple(item for item in items if item.index not in have)


def judge_batch(
    items: Sequence[Item], outcomes: Sequence[Outcome], state: RunState, dispatches: int
) -> Verdict:
    """Decides a batch's fate from what is there of it."""
    missing = missing_items(items, outcomes)
    if not missing:
        return Verdict(Fate.COLLATE, ())
    if state is not RunState.RUNNING:
        return Verdict(Fate.PARK, missing)
    return Verdict(Fate.AGAIN if dispatches < MAX_DISPATCHES else Fate.GIVE_UP, missing)


def lost_items(
    missing: Sequence[Item],
    leases: Mapping[int, Lease],
    alive: Collection[str],
    *,
    has_passed: bool,
) -> tuple[Item, ...]:
    """The items without an outcome that nobody will bring: to be sent again.

    Those that a process started which is dead now; and, once all messages of the batch have left
    the queue (`has_passed`), those that nobody started. An item that a busy worker has fetched
    already may be sent twice by this; its claim keeps it from being run twice.
    """
    return tuple(
        item
        for item in missing
        if (_is_lost(leases[item.index], alive) if item.index in leases else has_passed)
    )


def _is_lost(lease: Lease, alive: Collection[str]) -> bool:
    return lease.owner not in alive and lease.owner != LATER


@dataclass(frozen=True, slots=True)
class Room:
    """How many batches a step may send now, or how long it has to wait before the next one."""

    batches: int
    wait_s: float = 0.0


def room_for(step: StepPlan, opened: Collection[int], last_at: float, now: float) -> Room:
    """Applies a step's pacing: `opened` are its open batches, `last_at` its last dispatch."""
    free = step.pacing.concurrent_batches - len(opened)
    if free <= 0:
        return Room(0)
    delay_s = step.pacing.batch_delay_s
    if not delay_s:
        return Room(free)
    wait_s = last_at + delay_s - now
    return Room(0, wait_s) if wait_s > 0 else Room(1, delay_s)


def allowed_failures(tolerance: Tolerance, items: int) -> int | None:
    """The number of failed items that a step of this size bears; None for any number."""
    limits = []
    if tolerance.max_failures is not None:
        limits.append(tolerance.max_failures)
    if tolerance.max_failure_share is not None:
        limits.append(math.floor(tolerance.max_failure_share * items))
    return min(limits) if limits else None


def ready_steps(steps: Sequence[StepPlan], done: Collection[int]) -> list[StepPlan]:
    """The steps that are not done and whose needs are, in order."""
    done_names = {step.spec.name for step in steps if step.spec.number in done}
    return [
        step for step in steps if step.spec.number not in done and done_names.issuperset(step.needs)
    ]


def batch_count(items: int, batch_size: int) -> int:
    """How many batches a step's items make."""
    return -(-items // batch_size)
