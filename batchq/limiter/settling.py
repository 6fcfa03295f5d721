"""What the end of a call teaches, in memory: the twin of settle.lua."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from batchq.limiter.adaptive import least, step_back
from batchq.limiter.book import Book
from batchq.limiter.pacing import Pace, paces
from batchq.limiter.scripts import OVERLOADED_US
from batchq.limiter.signals import read_signal
from batchq.ports import Feedback, Reservation, Verdict


@dataclass
class Settlement:
    """One call that ended, whose lease ran from `start`. `events` are for the log."""

    book: Book
    asked: Reservation
    used: int
    feedback: Feedback
    start: float
    now: float
    events: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wanted = paces(self.asked.provider, self.asked.tokens)

    def take(self) -> None:
        """Corrects the limits by what was used and told, and stops everybody if it was refused."""
        for pace in self.wanted:
            self._correct(pace)
            self._take_over(pace)
        book, now = self.book, self.now
        past = max(0.0, min(now - book.settled_at, 5e6)) if book.settled_at else 0.0
        book.gap = math.floor(0.9 * book.gap + 0.1 * past + 0.5)
        book.settled_at = now
        self._note_answer()
        feedback = self.feedback
        after = -1.0 if feedback.retry_after_s is None else feedback.retry_after_s * 1e6
        if feedback.verdict is Verdict.REFUSED:
            self._stop(max(after, self._refused(), 0.0))
        elif feedback.verdict is Verdict.OVERLOADED:
            self._stop(after if after >= 0 else OVERLOADED_US)
        elif after > 0:
            self._stop(after)

    def _correct(self, pace: Pace) -> None:
        """Takes over the tokens really used."""
        difference = self.used - self.asked.tokens
        if pace.unit == "tokens":
            rate = self.book.rate(pace.name)
            rate.correct(rate.in_force(pace)[0], difference, self.start)
        if pace.name == "tpm":
            meter = self.book.meter
            meter.fade(self.now)
            meter.tokens = max(0.0, meter.tokens + difference)

    def _take_over(self, pace: Pace) -> None:
        """Notes what the provider told of its own limit."""
        rate, signal = self.book.rate(pace.name), read_signal(pace, self.feedback.quotas)
        forced = rate.in_force(pace)[0]
        if signal.hold_us and forced.amount:
            # The burst is not for this: nobody goes before the hold is over.
            free = (forced.burst - 1) * forced.step_us(forced.burst)
            rate.tat = max(rate.tat, math.ceil(self.now + signal.hold_us + free))
        most = rate.set or pace.amount
        if signal.told and (not most or signal.told < most):
            if signal.told != rate.told:
                self.events.append(f"told {pace.name} {signal.told:g}")
            rate.told = signal.told
        elif signal.told:
            rate.told = 0.0

    def _note_answer(self) -> None:
        breaker, lease = self.book.breaker, self.asked.lease
        verdict = self.feedback.verdict
        if verdict in (Verdict.DOWN, Verdict.OVERLOADED):
            if breaker.fail(lease, self.now):
                self.events.append("open")
        elif verdict is Verdict.UNSENT:
            if lease == breaker.probe:
                breaker.probe = ""
        elif breaker.answer(lease):
            self.events.append("closed")

    def _refused(self) -> float:
        """Lowers the limit that was in the way; says how long to hold all."""
        limit = self.feedback.limit or self._guess()
        return self._less_in_flight() if limit == "concurrency" else self._slower(limit)

    def _guess(self) -> str:
        tpm = next(pace for pace in self.wanted if pace.name == "tpm")
        has_tpm = self.book.rate("tpm").in_force(tpm)[0].amount > 0
        return "tokens" if has_tpm and self.wanted[0].name != "rpm" else "requests"

    def _less_in_flight(self) -> float:
        book = self.book
        if book.flight is not None and self.start < book.flight.cut:
            return 0.0
        # This call, too, was in flight when it was refused.
        amount = 1.0 + sum(expiry > self.now for _, expiry in book.leases.values())
        most = book.most_in_flight or self.asked.provider.limits.concurrency
        amount = min(amount, most) if most else amount
        if book.flight is not None:
            amount = min(amount, max(1.0, book.flight.amount))
        book.flight, held = step_back(book.flight, amount, 1, 0, self.now)
        self.events.append(f"cut concurrency {amount:.6g} {book.flight.floor:.6g}")
        return held

    def _slower(self, limit: str) -> float:
        name = "tpm" if limit == "tokens" else "rpm"
        pace = next(one for one in self.wanted if one.name == name)
        rate, meter, window = self.book.rate(name), self.book.meter, pace.window_us
        if rate.learned is not None and self.start < rate.learned.cut:
            return 0.0
        meter.fade(self.now)
        total = meter.tokens if name == "tpm" else meter.requests
        amount = max(least(max(1, pace.cost), window), 1.1 * meter.rate(total, window))
        forced = rate.in_force(pace)[0].amount
        amount = min(amount, forced) if forced else amount
        rate.learned, held = step_back(rate.learned, amount, pace.cost, window, self.now)
        self.events.append(f"cut {name} {amount:.6g} {rate.learned.floor:.6g}")
        return held

    def _stop(self, long: float) -> None:
        book = self.book
        if self.start >= book.paused:
            book.paused = self.now
        ends = book.paused + long
        if ends > self.now:
            book.paused_until = max(book.paused_until, ends)
