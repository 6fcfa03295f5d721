"""What the engine needs from the outside, as protocols; each has an in-memory twin for tests."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from batchq.endpoint import ProviderSpec, Unit
from batchq.outcome import Json, Outcome, Usage
from batchq.plan import Budget, Item, OutputSpec, Plan


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One call to a model. `schema` asks for JSON of that shape where the provider can do it."""

    provider: ProviderSpec
    messages: tuple[Message, ...]
    system: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class ChatReply:
    """A model's answer. `usage` has no price yet."""

    text: str
    model: str
    usage: Usage
    request_id: str = ""
    # The least that the provider's headers allow now; None where they say nothing.
    retry_after_s: float | None = None
    quotas: tuple[Quota, ...] = ()


class Provider(Protocol):
    """Speaks one wire format. One instance a process, used by many threads at once."""

    def call(self, request: ChatRequest) -> ChatReply:
        """Makes one call, without retries; raises ProviderError for anything but an answer."""
        ...


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer that was paid for and could be used. `stored_at` is seconds since the epoch."""

    text: str
    model: str
    usage: Usage
    stored_at: float


class Cache(Protocol):
    """Keeps answers by the name of their request, over runs and hosts; raises StoreError."""

    def get(self, key: str) -> KeptAnswer | None:
        """Reads an answer; None if there is none that can be read."""
        ...

    def get_many(self, keys: Collection[str]) -> Mapping[str, KeptAnswer]:
        """Reads many answers in few round trips; those that are there, by their keys."""
        ...

    def put(self, key: str, answer: KeptAnswer) -> None:
        """Keeps an answer, in place of an older one."""
        ...


@dataclass(frozen=True, slots=True)
class Quota:
    """What an answer's headers tell of one limit; None where they say nothing."""

    unit: Unit
    limit: float | None = None
    remaining: float | None = None
    reset_s: float | None = None


class Verdict(StrEnum):
    """What became of a call, as far as it matters to those that come after."""

    ANSWERED = "answered"  # the provider is there; the call itself may have been wrong
    REFUSED = "refused"  # too many calls (429)
    OVERLOADED = "overloaded"  # the provider has no room (529, 503)
    DOWN = "down"  # no answer, or HTTP 5xx
    UNSENT = "unsent"  # nothing is known: the call was not made


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a call showed of its provider. `limit` is what refused it, if it said so."""

    verdict: Verdict = Verdict.ANSWERED
    limit: Literal["", "requests", "tokens", "concurrency"] = ""
    retry_after_s: float | None = None
    quotas: tuple[Quota, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """The limiter's answer: go now if `wait_s` is 0, else ask again after it.

    `blocked_by` names what is in the way: a rate limit such as rpm, concurrency, pause, outage
    (the provider does not answer) or turn (another run is before this one). A probe is the one
    call that tries whether an outage is over.
    """

    wait_s: float
    blocked_by: str = ""
    is_probe: bool = False

    @property
    def is_granted(self) -> bool:
        """Whether the call may be made now."""
        return self.wait_s <= 0


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a call asks of a provider's limits: one request, its tokens and a concurrency lease.

    The lease is named RUN/ANYTHING, and ends by itself after `ttl_s`. A call that is told to wait
    for longer than `patience_s` has no place in line: it comes back at that moment, and others go
    meanwhile.
    """

    provider: ProviderSpec
    lease: str
    tokens: int
    ttl_s: float
    patience_s: float = math.inf


class Limiter(Protocol):
    """Reserves calls under a provider's limits, over every host, fairly between runs."""

    def reserve(self, asked: Reservation) -> Grant:
        """Takes all that was asked for, or nothing of it.

        A lease that is held already is granted again and charged once. Raises RequestTooLarge for
        more tokens than a whole limit has.
        """
        ...

    def settle(self, asked: Reservation, used: int, feedback: Feedback = Feedback()) -> float:
        """Returns the lease, corrects the tokens to those used, and learns from the answer.

        Returns for how many seconds the provider has not answered anybody, 0 if it does. Harmless
        when repeated, or when nothing was granted.
        """
        ...

    def pause(self, provider: ProviderSpec, seconds: float) -> None:
        """Lets nobody start a call to this provider for so long, on any host."""
        ...


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """A run's budget, what was spent of it, and what calls in flight hold.

    `name` is what people call the run. Money is in nano-dollars.
    """

    budget: Budget
    name: str = ""
    spent_nusd: int = 0
    spent_tokens: int = 0
    held_nusd: int = 0
    held_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Allowance:
    """Whether a call may be paid: at once, once others have ended, or not any more.

    Unless it is granted, `use` says how the budget stands and `need` what the call would hold.
    """

    verdict: Literal["granted", "wait", "used up"]
    use: BudgetUse | None = None
    need: Usage = Usage()


class Budgets(Protocol):
    """Holds what calls may cost within the budget of their run, over every host."""

    def reserve(self, run: str, lease: str, owner: str, need: Usage) -> Allowance:
        """Holds what a call of `owner`, a live process, may use, or says why not."""
        ...

    def settle(self, run: str, lease: str, used: Usage) -> None:
        """Takes what a call used in place of what it held; harmless when done twice."""
        ...


class Claim(StrEnum):
    """What a worker may do with an item that was delivered to it."""

    RUN = "run"  # it is ours: run it
    DONE = "done"  # its outcome is there, or its batch is collated: say so, do not call
    HELD = "held"  # another live process runs it: step back
    STOPPED = "stopped"  # its run is paused or cancelled: hand it back unrun


@dataclass(frozen=True, slots=True)
class ItemRef:
    """Names one item of one batch of one run."""

    run: str
    step: int
    batch: int
    index: int


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """A claim, what ran of the item before (stage -> value), and how often it was started.

    `has_budget` says that the run's calls are to be paid out of one. `delivered` is the answer that
    came for it by an upload, as `engine.delivered` writes it, if one came.
    """

    claim: Claim
    checkpoints: Mapping[str, Json] = field(default_factory=dict)
    starts: int = 1
    has_budget: bool = False
    delivered: str = ""


LATER = "later"
TRIED = "#attempts"
"""The checkpoint with the attempts of an item that is to go on later; no stage is named so."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who runs an item, and how often it was started. Nobody runs one whose owner is LATER: its
    message is on its way back.
    """  # noqa: D205 (two claims, no details)

    owner: str
    starts: int


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch in flight: when it was last sent (seconds since the epoch), and how often."""

    sent_at: float
    dispatches: int


class WorkerLedger(Protocol):
    """The worker's side of the ledger in Redis."""

    def claim(self, ref: ItemRef, owner: str) -> ClaimResult:
        """Takes an item for `owner`, a live process, unless it is done, held or stopped."""
        ...

    def checkpoint(self, ref: ItemRef, stage: str, value: Json) -> None:
        """Keeps what a stage gave, so that it is not paid again."""
        ...

    def commit(self, ref: ItemRef, outcome: Outcome) -> bool:
        """Keeps an outcome and counts it, once: the first one wins. Says whether it was this."""
        ...

    def release(self, ref: ItemRef, *, starts: int = 0, until: float = 0.0) -> None:
        """Hands an item back unrun, for another process to claim.

        With `until`, its message comes back by then (seconds since the epoch), and so often was
        it started before.
        """
        ...

    def is_running(self, run: str) -> bool:
        """Whether the run's items may go on; false once it is paused, cancelled or failed."""
        ...


class RunFolder(Protocol):
    """One version's folder: the truth about a run. Every file appears whole or not at all."""

    def freeze_items(self, step: int, items: Iterable[Item]) -> int:
        """Writes a step's items down, once; returns how many there are."""
        ...

    def batch(self, step: int, number: int, size: int) -> Sequence[Item]:
        """Reads the items of one batch, without reading those before it."""
        ...

    def write_batch(
        self, step: int, number: int, outcomes: Sequence[Outcome], output: OutputSpec
    ) -> bool:
        """Writes item files, prompts and the batch's record; False if the record was there."""
        ...

    def collated_batches(self, step: int) -> set[int]:
        """The numbers of the batches whose record is there."""
        ...

    def outcomes(self, step: int) -> Iterator[Outcome]:
        """Reads back all outcomes of a step, batch by batch, in input order."""
        ...


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a coordinator needs to take up a run: its id, its folder, its plan."""

    run: str
    pipeline: str
    version: str
    folder: str
    plan: Plan
    created_at: float
    mode: str = "initial"
    base_version: str = ""
    catalog_url: str = ""  # of whoever submitted it
