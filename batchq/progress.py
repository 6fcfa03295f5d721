"""How far a run is at one moment: its state, its steps, its canary, what items and uploads say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from batchq.outcome import Summary, Usage
from batchq.ports import BudgetUse


class RunState(StrEnum):
    """Where a run stands."""

    PENDING = "pending"  # frozen, no coordinator took it up yet
    RUNNING = "running"  # batches go out
    PAUSED = "paused"  # none goes out, what is in flight ends; resume goes on
    COMPLETED = "completed"  # all steps are collated
    FAILED = "failed"  # stopped by itself: too many failures
    CANCELLED = "cancelled"  # stopped by a person

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens by itself."""
        return self not in (RunState.PENDING, RunState.RUNNING)


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """What the first items of a run came to, and what the rest of it is estimated to take.

    An `asking` or `failing` run stands still until somebody approves. `rest` counts calls and
    tokens over all steps; its money is None where a price is unknown.
    """

    state: Literal["passed", "asking", "failing", "approved"]
    items: int
    failed: int
    usage: Usage
    latency_s: float
    rest_items: int
    rest: Usage
    rest_cost_usd: float | None
    rest_s: float

    @property
    def is_decided(self) -> bool:
        """Whether the other items may follow."""
        return self.state in ("passed", "approved")


@dataclass(frozen=True, slots=True)
class StepProgress:
    """How far one step is. `total` is 0 until its items are known.

    `window` is how many batches may be in flight, `next_batch_at` when the next one is sent where
    a delay holds it back, in seconds since the epoch.
    """

    number: int
    name: str
    state: Literal["waiting", "running", "done"]
    total: int
    batches: int
    collated: int
    summary: Summary
    window: int = 1
    next_batch_at: float | None = None

    @property
    def groups(self) -> int:
        """How many times the window the batches make."""
        return -(-self.batches // self.window)

    @property
    def group(self) -> int:
        """The group that is worked at, from 1."""
        return min(self.groups, self.collated // self.window + 1)


@dataclass(frozen=True, slots=True)
class ItemProgress:
    """How far a running item says it is; `total` is None if it does not say."""

    step: int
    item_id: str
    done: float
    total: float | None = None


@dataclass(frozen=True, slots=True)
class UploadsTold:
    """How far the uploads of a step are: those at the provider, their lines, how many have ended.

    `note` says what keeps the next one back.
    """

    step: int
    provider: str
    running: int = 0
    lines: int = 0
    answered: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """A run at one moment, for status and watch."""

    run: str
    pipeline: str
    version: str
    state: RunState
    reason: str
    folder: str
    steps: tuple[StepProgress, ...]
    in_flight: int
    started_at: float
    updated_at: float
    recent: tuple[str, ...] = ()
    bound_by: str = ""
    budget: BudgetUse | None = None
    canary: CanaryReport | None = None
    told: tuple[ItemProgress, ...] = ()
    canary_items: int = 0  # how many run before the others; 0 once that is decided
    uploads: tuple[UploadsTold, ...] = ()

    @property
    def summary(self) -> Summary:
        """All steps together."""
        return sum((step.summary for step in self.steps), Summary())
