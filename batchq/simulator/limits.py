"""The provider's limits: on requests and tokens, by bucket or window, and on calls in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from batchq.simulator.options import SimulatorOptions

LimitName = Literal["requests", "tokens", "concurrency"]
CONCURRENCY_RETRY_S = 1.0
"""What a refusal for concurrency advises: nobody knows when a call in flight will end."""
ROUNDING = 1e-9
"""Sums of floats may miss a whole request by less than this."""


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit as the headers of an answer tell it."""

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a call may run now; if not, what is in the way, and when to come back.

    `retry_after_s` is None where no wait would help, as the call exceeds the whole limit.
    """

    blocked_by: LimitName | None = None
    retry_after_s: float | None = None

    @property
    def is_admitted(self) -> bool:
        """Whether the call may run."""
        return self.blocked_by is None


class Bucket:
    """Holds up to `capacity`, full at first, and fills by `per_minute`."""

    def __init__(self, per_minute: float, capacity: float, now: float) -> None:
        self.per_minute = per_minute
        self.capacity = capacity
        self._level = capacity
        self._filled_at = now

    def resize(self, per_minute: float, capacity: float, now: float) -> None:
        """Changes the limit; what was used up stays used up."""
        level = self.level(now)
        self.per_minute, self.capacity = per_minute, capacity
        self._level, self._filled_at = min(level, capacity), now

    def level(self, now: float) -> float:
        """What may be taken at once."""
        gained = (now - self._filled_at) * self.per_minute / 60
        return min(self.capacity, self._level + gained)

    def wait_s(self, now: float, amount: float) -> float | None:
        """How long until `amount` is there; None if it never fits."""
        if amount > self.capacity:
            return None
        missing = amount - self.level(now)
        return missing * 60 / self.per_minute if missing > ROUNDING else 0.0

    def take(self, now: float, amount: float) -> None:
        """Takes `amount`."""
        self._level, self._filled_at = self.level(now) - amount, now

    def state(self, now: float) -> LimitState:
        """What the headers tell: the limit is that of a whole minute."""
        level = self.level(now)
        reset_s = (self.capacity - level) * 60 / self.per_minute
        return LimitState(int(self.per_minute), int(level), reset_s)


class Window:
    """Lets no span of `span_s` seconds hold more than `capacity`: the strictest there is."""

    def __init__(self, per_minute: float, capacity: float, now: float) -> None:
        self._taken: deque[tuple[float, float]] = deque()
        self._used = 0.0
        self.resize(per_minute, capacity, now)

    def resize(self, per_minute: float, capacity: float, now: float) -> None:  # noqa: ARG002 (as Bucket)
        """Changes the limit; what was taken stays taken."""
        self.per_minute, self.capacity = per_minute, capacity
        self.span_s = capacity * 60 / per_minute

    def level(self, now: float) -> float:
        """What may be taken at once; less than nothing after the limit was lowered."""
        while self._taken and self._taken[0][0] <= now - self.span_s:
            self._used -= self._taken.popleft()[1]
        return self.capacity - self._used

    def wait_s(self, now: float, amount: float) -> float | None:
        """How long until `amount` is there; None if it never fits."""
        if amount > self.capacity:
            return None
        missing = amount - self.level(now)
        if missing <= ROUNDING:
            return 0.0
        for at, taken in self._taken:
            missing -= taken
            if missing <= ROUNDING:
                return at + self.span_s - now
        raise AssertionError("what is missing was taken by somebody")

    def take(self, now: float, amount: float) -> None:
        """Takes `amount`."""
        self._taken.append((now, amount))
        self._used += amount

    def state(self, now: float) -> LimitState:
        """What the headers tell: the limit is that of a whole minute."""
        level = self.level(now)
        reset_s = self._taken[-1][0] + self.span_s - now if self._taken else 0.0
        return LimitState(int(self.per_minute), int(level), reset_s)


class Limits:
    """Admits calls under rpm, tpm and concurrency; all limits agree, or nothing is taken."""

    def __init__(self, options: SimulatorOptions, clock: Callable[[], float]) -> None:
        self.in_flight = 0
        self.peak_in_flight = 0
        self._clock = clock
        self._concurrency: int | None = None
        self._kind: type[Bucket] | type[Window] = Bucket
        self._buckets: dict[Literal["requests", "tokens"], Bucket | Window] = {}
        self.configure(options)

    def configure(self, options: SimulatorOptions) -> None:
        """Takes over changed limits while calls go on."""
        self._concurrency = options.concurrency
        kind = Window if options.enforcement == "window" else Bucket
        if kind is not self._kind:
            self._kind = kind
            self._buckets.clear()  # a bucket knows nothing of when it was used
        self._set_bucket("requests", options.rpm, options.burst_s)
        self._set_bucket("tokens", options.tpm, options.burst_s)

    def _set_bucket(
        self, name: Literal["requests", "tokens"], per_minute: float | None, burst_s: float
    ) -> None:
        if per_minute is None:
            self._buckets.pop(name, None)
            return
        now = self._clock()
        capacity = max(1.0, per_minute * burst_s / 60)
        if bucket := self._buckets.get(name):
            bucket.resize(per_minute, capacity, now)
        else:
            self._buckets[name] = self._kind(per_minute, capacity, now)

    def admit(self, tokens: int) -> Admission:
        """Takes a place in flight, one request and `tokens` tokens, or refuses the call."""
        if self._concurrency is not None and self.in_flight >= self._concurrency:
            return Admission("concurrency", CONCURRENCY_RETRY_S)
        now = self._clock()
        wanted = {"requests": 1, "tokens": tokens}
        waits = {name: bucket.wait_s(now, wanted[name]) for name, bucket in self._buckets.items()}
        for name, wait_s in waits.items():
            if wait_s is None:
                return Admission(name, None)
        blocked = {name: wait_s for name, wait_s in waits.items() if wait_s}
        if blocked:
            longest = max(blocked, key=blocked.__getitem__)
            return Admission(longest, blocked[longest])
        for name, bucket in self._buckets.items():
            bucket.take(now, wanted[name])
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        return Admission()

    def release(self) -> None:
        """Gives back a place in flight."""
        self.in_flight -= 1

    def states(self) -> dict[str, LimitState]:
        """The limits that headers tell of, by `requests` and `tokens`."""
        now = self._clock()
        return {name: bucket.state(now) for name, bucket in self._buckets.items()}

    def reset(self, options: SimulatorOptions) -> None:
        """Fills all buckets; calls in flight stay counted."""
        self._buckets.clear()
        self.peak_in_flight = self.in_flight
        self.configure(options)
