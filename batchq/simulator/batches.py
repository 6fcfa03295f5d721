"""Batches of calls that are answered later: their lives, apart from the format they come in."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from batchq.simulator.chat import Answer, Call, Rejected, Rejection
from batchq.simulator.faults import draw
from batchq.simulator.options import SimulatorOptions
from batchq.simulator.replies import identify, input_tokens

Api = Literal["openai", "anthropic"]


class Untouched(StrEnum):
    """Why a line was not answered, nor paid."""

    EXPIRED = "expired"  # the window ended before
    CANCELLED = "cancelled"  # the batch was cancelled before


class State(StrEnum):
    """Where a batch stands."""

    REJECTED = "rejected"  # as a whole: nothing of it was done
    RUNNING = "running"
    CANCELLING = "cancelling"  # what is under way is still answered
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a batch is rejected; `line` counts from 1, and is 0 where it is all of them."""

    code: str
    message: str
    line: int = 0


@dataclass(slots=True)
class Line:
    """One call of a batch. `time` counts how often its content came in a batch, this one too."""

    id: str
    call: Call | Rejected
    prompt: int = 0
    time: int = 0
    tokens: int = 0
    share: float = 0.0  # of the batch's time after which it is answered
    due_at: float = math.inf
    outcome: Answer | Rejected | Untouched | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many lines of a batch stand where."""

    waiting: int
    answered: int
    failed: int
    expired: int
    cancelled: int


class Batch:
    """One batch, from its creation to its end."""

    def __init__(
        self,
        batch_id: str,
        api: Api,
        lines: Sequence[Line],
        options: SimulatorOptions,
        now: float,
        *,
        details: Mapping[str, Any] | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        self.id = batch_id
        self.api = api
        self.lines = lines
        self.options = options
        self.created_at = now
        self.details = details or {}
        self.problems = problems
        self.cancelled_at: float | None = None
        self.downloads: Counter[str] = Counter()
        self.tokens = sum(line.tokens for line in lines)
        self._by_due = sorted(lines, key=lambda line: (line.due_at, line.share))
        self._last_due_at = self._by_due[-1].due_at if lines else now
        self._done = 0
        self._seen_at = now

    @property
    def expires_at(self) -> float:
        """When what is not answered by then expires."""
        return self.created_at + self.options.batch_window_s

    @property
    def ends_at(self) -> float:
        """When its results can be read."""
        if self.problems:
            return self.created_at
        end = self.expires_at
        if not math.isinf(self._last_due_at):
            end = min(end, self.created_at + self.options.batch_s)
        if self.cancelled_at is not None:
            end = min(end, self.cancelled_at + self.options.batch_cancel_s)
        return end

    @property
    def state(self) -> State:
        """Where it stands, as of the last `advance`."""
        if self.problems:
            return State.REJECTED
        if self._seen_at >= self.ends_at:
            return State.ENDED
        return State.RUNNING if self.cancelled_at is None else State.CANCELLING

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in (State.ENDED, State.REJECTED)

    def advance(self, now: float, answer: Callable[[Line], Answer | Rejected]) -> None:
        """Answers what is due; at the end, gives up what is left."""
        self._seen_at = now
        if self.problems:
            return
        end = self.ends_at
        while self._done < len(self.lines):
            line = self._by_due[self._done]
            if line.due_at > min(now, end):
                break
            line.outcome = answer(line)
            self._done += 1
        if now < end:
            return
        is_expired = self.cancelled_at is None or end >= self.expires_at
        for line in self._by_due[self._done :]:
            line.outcome = Untouched.EXPIRED if is_expired else Untouched.CANCELLED
        self._done = len(self.lines)

    def counts(self) -> Counts:
        """How many lines stand where, as of the last `advance`."""
        kinds = Counter(
            line.outcome if isinstance(line.outcome, Untouched) else type(line.outcome)
            for line in self.lines
        )
        return Counts(
            waiting=kinds[type(None)],
            answered=kinds[Answer],
            failed=kinds[Rejected],
            expired=kinds[Untouched.EXPIRED],
            cancelled=kinds[Untouched.CANCELLED],
        )

    def result_lines(self) -> Sequence[Line]:
        """The lines in the order in which results tell of them."""
        return self.lines if self.options.batch_order == "given" else self._by_due


class Batches:
    """All batches of a provider, in memory."""

    def __init__(
        self,
        clock: Callable[[], float],
        answer: Callable[[Line], Answer | Rejected],
    ) -> None:
        self._clock = clock
        self._answer = answer
        self._batches: dict[str, Batch] = {}
        self._created = 0
        self._times: Counter[int] = Counter()
        self.requests: Counter[str] = Counter()

    def create(
        self,
        api: Api,
        calls: Sequence[tuple[str, Call | Rejected]],
        options: SimulatorOptions,
        *,
        details: Mapping[str, Any] | None = None,
        problems: Sequence[Problem] = (),
    ) -> Batch:
        """Takes a batch in, or keeps it as a rejected one."""
        now = self._clock()
        self._created = number = self._created + 1
        if not problems and draw(options.seed, number, 1, "reject") < options.batch_reject_rate:
            problems = (Problem("invalid_batch", "The batch was rejected (simulated)"),)
        batch = Batch(
            f"{'batch' if api == 'openai' else 'msgbatch'}_{number:012d}",
            api,
            () if problems else [self._line(*call, options, now) for call in calls],
            options,
            now,
            details=details,
            problems=problems,
        )
        self._batches[batch.id] = batch
        return batch

    def queue_problem(
        self, calls: Sequence[tuple[str, Call | Rejected]], options: SimulatorOptions
    ) -> Problem | None:
        """Why there is no room for more tokens, if there is none."""
        limit = options.batch_queue_tokens
        if limit is None:
            return None
        wanted = sum(input_tokens(call) for _, call in calls if isinstance(call, Call))
        now = self._clock()
        held = sum(batch.tokens for batch in self._batches.values() if batch.ends_at > now)
        if held + wanted <= limit:
            return None
        return Problem(
            "token_limit_exceeded",
            f"Enqueued token limit reached. Limit: {limit:,} enqueued tokens. Please try again"
            " once some in_progress batches have been completed.",
        )

    def now(self) -> float:
        """The moment that it is, on the clock of all batches."""
        return self._clock()

    def get(self, api: Api, batch_id: str) -> Batch:
        """Finds a batch and brings it up to date; raises Rejected if there is none."""
        batch = self._batches.get(batch_id)
        if batch is None or batch.api != api:
            raise Rejected(Rejection.UNKNOWN_ID, f"No batch found with id '{batch_id}'.")
        batch.advance(self._clock(), self._answer)
        return batch

    def newest(self, api: Api) -> list[Batch]:
        """All batches of a format, the newest first."""
        return [batch for batch in reversed(self.all()) if batch.api == api]

    def all(self) -> list[Batch]:
        """All batches, the oldest first, each up to date."""
        for batch in self._batches.values():
            batch.advance(self._clock(), self._answer)
        return list(self._batches.values())

    def cancel(self, api: Api, batch_id: str) -> Batch:
        """Cancels a batch that has not ended."""
        batch = self.get(api, batch_id)
        if batch.is_over:
            raise Rejected(Rejection.CONFLICT, f"Cannot cancel a batch that is {batch.state}.")
        if batch.cancelled_at is None:
            batch.cancelled_at = self._clock()
            batch.advance(self._clock(), self._answer)
        return batch

    def remove(self, api: Api, batch_id: str) -> None:
        """Forgets a batch that has ended."""
        batch = self.get(api, batch_id)
        if not batch.is_over:
            raise Rejected(Rejection.CONFLICT, "A batch that runs cannot be deleted: cancel it.")
        del self._batches[batch_id]

    def _line(
        self, line_id: str, call: Call | Rejected, options: SimulatorOptions, now: float
    ) -> Line:
        if isinstance(call, Rejected):
            return Line(line_id, call, due_at=now)
        prompt = identify(call)
        self._times[prompt] += 1
        time = self._times[prompt]
        share = draw(options.seed, prompt, time, "share")
        line = Line(line_id, call, prompt, time, input_tokens(call), share)
        if draw(options.seed, prompt, time, "expire") >= options.batch_expire_rate:
            line.due_at = now + options.batch_s * share
        return line
