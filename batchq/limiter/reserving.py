"""Whether a call may go, in memory: the twin of reserve.lua."""

from __future__ import annotations

import math
from dataclasses import dataclass

from batchq.limiter.adaptive import FIRST, Learned
from batchq.limiter.book import Book
from batchq.limiter.breaker import SLOW_AFTER, SLOW_CALLS
from batchq.limiter.line import SPACING_MAX_US, SPACING_MIN_US
from batchq.limiter.pacing import Pace, paces
from batchq.ports import Grant, Reservation

_ALONE_US = 1_000.0  # what a call takes of a provider without any limit


@dataclass
class Request:
    """One call that asks: what reserve.lua does."""

    book: Book
    asked: Reservation
    now: float
    unit: float = _ALONE_US
    whole: float = _ALONE_US  # the unit before it is divided by the run's priority

    def __post_init__(self) -> None:
        self.wanted = paces(self.asked.provider, self.asked.tokens)

    def decide(self) -> Grant:
        """Grants it, or finds what is in the way and puts it in line."""
        book, now = self.book, self.now
        forced = self._limits()
        longest, blocked = self._longest(forced)
        cap, is_found = self._cap()
        if cap:
            self.unit = max(self.unit, book.gap)
        self.whole, self.unit = self.unit, math.ceil(self.unit / self.asked.provider.priority)
        book.line.prune(self.unit, now)
        if book.paused_until > now:
            return self._wait("pause", book.paused_until - now, 1000.0)
        breaker = book.breaker
        if breaker.opens and now < breaker.until:
            return self._wait("outage", breaker.until - now, SPACING_MAX_US)
        if breaker.opens and breaker.probe and now < breaker.probe_until:
            return self._wait("outage", 10 * SPACING_MAX_US, SPACING_MAX_US)
        if cap and len(book.leases) >= cap:
            if book.flight is not None and is_found:
                book.flight.grow(now)
            spacing = max(SPACING_MIN_US, min(book.gap / 4 or SPACING_MAX_US, SPACING_MAX_US))
            return self._wait("concurrency", spacing, spacing)
        if blocked is not None:
            rate = book.rate(blocked.name)
            if rate.learned is not None and rate.learned.amount <= blocked.amount:
                rate.learned.grow(now)
            step = blocked.step_us(rate.burst_now(blocked, now))
            return self._wait(blocked.name, longest, blocked.cost * step)
        if not book.line.is_turn(self.asked.lease, self.unit, now):
            return self._wait("turn", max(self.whole, SPACING_MIN_US), 0.0)
        return self._grant(forced, is_found=is_found)

    def _limits(self) -> list[tuple[Pace, bool, float]]:
        forced = []
        for pace in self.wanted:
            rate = self.book.rate(pace.name)
            if self.asked.provider.limits.adaptive and pace.name == "rpm" and rate.learned is None:
                rate.learned = Learned(FIRST, grown=self.now)
            forced.append(rate.in_force(pace))
        return forced

    def _longest(self, forced: list[tuple[Pace, bool, float]]) -> tuple[float, Pace | None]:
        longest, blocked = 1.0, None
        for pace, _, _ in forced:
            if not pace.amount:
                continue
            rate = self.book.rate(pace.name)
            burst = rate.burst_now(pace, self.now)
            step = pace.step_us(burst)
            wait = rate.tat + (pace.cost - burst) * step - self.now
            self.unit = max(self.unit, pace.cost * step)
            if wait > longest:
                longest, blocked = wait, pace
        return longest, blocked

    def _cap(self) -> tuple[float, bool]:
        """How many calls may be in flight (0: any number), and whether that was found out."""
        cap = self.book.most_in_flight or self.asked.provider.limits.concurrency or 0
        is_found = False
        if self.book.flight is not None:
            found = max(1, math.floor(self.book.flight.amount))
            is_found = not cap or found < cap
            cap = found if is_found else cap
        breaker = self.book.breaker
        if not breaker.opens and breaker.fails >= SLOW_AFTER:
            cap = min(cap or SLOW_CALLS, SLOW_CALLS)
        return cap, is_found

    def _wait(self, name: str, wait: float, spread: float) -> Grant:
        line, asked, now = self.book.line, self.asked, self.now
        patience = asked.patience_s * 1e6
        placed = line.join(asked.lease, self.unit, wait, spread, patience, now)
        if placed is None:
            placed = line.come_back(asked.lease, self.whole, name, wait, patience, now)
        return Grant(max(1, math.ceil(placed)) / 1e6, name)

    def _grant(self, forced: list[tuple[Pace, bool, float]], *, is_found: bool) -> Grant:
        book, now = self.book, self.now
        asked, until = self.asked, now + self.asked.ttl_s * 1e6
        for pace, is_learned, most in forced:
            rate = book.rate(pace.name)
            if pace.amount:
                rate.charge(pace, now)
            if rate.learned is not None:
                if not asked.provider.limits.adaptive and most and not is_learned:
                    rate.learned = None  # it has grown back
                else:
                    rate.learned.spent += pace.cost
        if (book.most_in_flight or asked.provider.limits.concurrency) and not is_found:
            book.flight = None
        is_probe = book.breaker.opens > 0
        if is_probe:
            book.breaker.probe, book.breaker.probe_until = asked.lease, until
        book.meter.fade(now)
        book.meter.requests += 1
        book.meter.tokens += asked.tokens
        book.line.leave(asked.lease, self.unit)
        book.leases[asked.lease] = (now, until)
        return Grant(0.0, is_probe=is_probe)
