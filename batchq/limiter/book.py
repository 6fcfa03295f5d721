"""What the limiter in memory keeps of a provider; see limits.lua. All times in microseconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from batchq.limiter.adaptive import Learned
from batchq.limiter.breaker import Breaker
from batchq.limiter.line import Line
from batchq.limiter.pacing import Pace
from batchq.limiter.scripts import METER_US


@dataclass
class Rate:
    """What the scripts keep of one rate limit, in microseconds."""

    tat: float = 0.0
    burst: float = 0.0
    large_at: float = 0.0
    idle_at: float = 0.0
    learned: Learned | None = None
    told: float = 0.0
    set: float = 0.0

    def in_force(self, pace: Pace) -> tuple[Pace, bool, float]:
        """The limit as it is in force, whether it was learned, and the most it may be."""
        most = self._most(pace.amount)
        amount = self._found(most)
        return pace.at(amount), amount != most, most

    def amount_in_force(self, given: float) -> float:
        """What is in force of an amount that the manifest gives."""
        return self._found(self._most(given))

    def _most(self, given: float) -> float:
        most = self.set or given
        return self.told if self.told and (not most or self.told < most) else most

    def _found(self, most: float) -> float:
        found = self.learned.amount if self.learned is not None else 0.0
        return found if found and (not most or found < most) else most

    def burst_now(self, pace: Pace, now: float) -> float:
        """How many units may come at once: more for a while after a large request."""
        if self.burst and now - self.large_at < 2 * pace.window_us:
            return min(max(pace.burst, self.burst), pace.largest_burst)
        return pace.burst

    def charge(self, pace: Pace, now: float) -> None:
        """Takes a call's units."""
        burst = self.burst_now(pace, now)
        size = min(pace.cost, pace.largest_burst)
        extra = max(0.0, size - burst)  # the burst grows: see reserve.lua
        burst = max(burst, size)
        if burst > pace.burst and pace.cost * 2 > burst:
            self.burst, self.large_at = math.ceil(burst), now
        if self.tat < now:
            self.idle_at = now
        self.tat = math.ceil(max(self.tat, now) + (pace.cost + extra) * pace.step_us(burst))

    def correct(self, pace: Pace, difference: int, start: float) -> None:
        """Takes over what a call used more or less than was reserved."""
        if not pace.amount or not self.tat or not difference:
            return
        if difference > 0:
            burst = max(pace.burst, min(self.burst, pace.amount / 2))
            self.tat = math.ceil(self.tat + difference * pace.step_us(burst))
        elif start >= self.idle_at:
            self.tat = math.ceil(self.tat + difference * pace.step_us(pace.burst))


@dataclass
class Meter:
    """Sums that fade of what was granted lately."""

    at: float
    since: float
    requests: float = 0.0
    tokens: float = 0.0

    def fade(self, now: float) -> None:
        """Lets them fade until now."""
        past = max(0.0, now - self.at)
        if past > 6 * METER_US:
            self.since, self.requests, self.tokens = now, 0.0, 0.0
        left = math.exp(-past / METER_US)
        self.at, self.requests, self.tokens = now, self.requests * left, self.tokens * left

    def rate(self, total: float, window_us: float) -> float:
        """What a sum makes of a window."""
        long = max(self.at - self.since, METER_US / 10)
        return total / (METER_US * (1 - math.exp(-long / METER_US))) * window_us


@dataclass
class Book:
    """All that is kept of one provider: the twin of its keys in Redis."""

    meter: Meter
    given: dict[str, float] = field(default_factory=dict)
    rates: dict[str, Rate] = field(default_factory=dict)
    leases: dict[str, tuple[float, float]] = field(default_factory=dict)  # start, expiry
    flight: Learned | None = None
    most_in_flight: float = 0.0  # set by hand
    paused: float = 0.0
    paused_until: float = 0.0
    breaker: Breaker = field(default_factory=Breaker)
    line: Line = field(default_factory=Line)
    gap: float = 0.0
    settled_at: float = 0.0

    def rate(self, name: str) -> Rate:
        """What is kept of one rate limit."""
        return self.rates.setdefault(name, Rate())

    def set_rate(self, name: str, amount: float, now: float) -> None:
        """Sets a limit by hand, 0 for none: what was granted counts as much of it as before."""
        rate = self.rate(name)
        before = rate.amount_in_force(self.given.get(name, 0.0))
        rate.set, rate.learned = amount, None
        after = rate.amount_in_force(self.given.get(name, 0.0))
        if before and after and rate.tat > now:
            rate.tat = now + math.ceil((rate.tat - now) * before / after)
