"""What became of an item, and sums of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Json = Any
"""Anything that `json.dumps(..., allow_nan=False)` writes."""


class State(StrEnum):
    """How an item ended."""

    OK = "ok"  # has an output
    FAILED = "failed"  # has an error


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls used; adds up.

    Money is counted in whole nano-dollars, so that sums are exact and order does not matter.
    `unpriced_calls` counts the calls whose price nobody knows: they are in no sum of money.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nusd: int = 0
    unpriced_calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost_nusd + other.cost_nusd,
            self.unpriced_calls + other.unpriced_calls,
        )

    @property
    def tokens(self) -> int:
        """Input and output tokens together, as limits and budgets count them."""
        return self.input_tokens + self.output_tokens

    @property
    def cost_usd(self) -> float:
        """Dollars; see `unpriced_calls` for what they leave out."""
        return self.cost_nusd / 1e9


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why an item, or one attempt at it, failed.

    `kind` is one word that failures are grouped by: the kinds of `batchq.errors`, and
    `prompt`, `task`, `command`, `memory`, `not_serializable`, `worker_lost`, `cancelled`,
    `internal`.
    """

    kind: str
    message: str
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one stage: a call, a function, a program; `cached` if it took a kept answer.

    One that an upload brought has the name of that in `upload`; the others were made online.
    """

    number: int
    started_at: float
    duration_s: float
    waited_s: float = 0.0
    stage: str = ""
    error: ItemError | None = None
    usage: Usage = Usage()
    model: str = ""
    cached: bool = False
    upload: str = ""


@dataclass(frozen=True, slots=True)
class SentPrompt:
    """The text of a prompt as it was sent, for the run folder."""

    stage: str
    text: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What a task took of its process, and the numbers it gave; None stands for NaN.

    `output_bytes` is the size of its files, or of its output if it has none. `problem` says why
    there are no metrics, where their function failed.
    """

    duration_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    output_bytes: int = 0
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item in one step.

    `started_at` and `ended_at` are seconds since the epoch. `output` is None unless ok.
    `raw` keeps the last answer of a failed item, cut at 20,000 characters. `cached` says that it
    had answers from the cache and that nothing was paid for it.
    """

    item_id: str
    index: int
    state: State
    output: Json = None
    error: ItemError | None = None
    attempts: tuple[Attempt, ...] = ()
    usage: Usage = Usage()
    prompts: tuple[SentPrompt, ...] = ()
    raw: str = ""
    repaired: bool = False
    cached: bool = False
    started_at: float = 0.0
    ended_at: float = 0.0
    worker: str = ""
    measured: Measured | None = None

    @property
    def is_ok(self) -> bool:
        """Whether the item has an output."""
        return self.state is State.OK

    @property
    def retries(self) -> int:
        """Tries beyond the first of each stage."""
        return len(self.attempts) - len({attempt.stage for attempt in self.attempts})


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of outcomes; adds up, in any order.

    Of the calls in `usage`, `upload_calls` went in uploads, for `upload_nusd` of its money.
    """

    ok: int = 0
    failed: int = 0
    retries: int = 0
    repaired: int = 0
    cached: int = 0
    usage: Usage = field(default_factory=Usage)
    upload_calls: int = 0
    upload_nusd: int = 0

    @classmethod
    def of(cls, outcome: Outcome) -> Summary:
        """Counts one outcome."""
        uploaded = [one.usage for one in outcome.attempts if one.upload]
        return cls(
            ok=int(outcome.is_ok),
            failed=int(not outcome.is_ok),
            retries=max(0, outcome.retries),
            repaired=int(outcome.repaired),
            cached=int(outcome.cached),
            usage=outcome.usage,
            upload_calls=sum(one.calls for one in uploaded),
            upload_nusd=sum(one.cost_nusd for one in uploaded),
        )

    def __add__(self, other: Summary) -> Summary:
        return Summary(
            self.ok + other.ok,
            self.failed + other.failed,
            self.retries + other.retries,
            self.repaired + other.repaired,
            self.cached + other.cached,
            self.usage + other.usage,
            self.upload_calls + other.upload_calls,
            self.upload_nusd + other.upload_nusd,
        )

    @property
    def total(self) -> int:
        """Items that have ended."""
        return self.ok + self.failed
