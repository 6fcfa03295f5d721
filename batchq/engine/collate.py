"""Decides what a run does next; pure, so every case can be tested."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from batchq.plan import StepPlan, Tolerance


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
