"""Rate limits and leases within one process: for tests, and for runs without a broker."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from batchq.limiter.adaptive import FIRST, Learned, least, step_back
from batchq.limiter.breaker import SLOW_AFTER, SLOW_CALLS, Breaker
from batchq.limiter.events import describe
from batchq.limiter.keys import provider_key
from batchq.limiter.line import SPACING_US, Line
from batchq.limiter.pacing import Pace, check_size, paces
from batchq.limiter.scripts import METER_US, OVERLOADED_US
from batchq.limiter.signals import read_signal
from batchq.plan import ProviderSpec
from batchq.ports import Feedback, Grant, Verdict

log = logging.getLogger(__name__)

_NOTHING = Feedback()
_ALONE_US = 1_000.0  # what a call takes of a provider without any limit


@dataclass
class _Rate:
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
        most = self.set or pace.amount
        if self.told and (not most or self.told < most):
            most = self.told
        if self.learned is not None and (not most or self.learned.amount < most):
            return pace.at(self.learned.amount), True, most
        return pace.at(most), False, most

    def burst_now(self, pace: Pace, now: float) -> float:
        if self.burst and now - self.large_at < 2 * pace.window_us:
            return min(max(pace.burst, self.burst), pace.largest_burst)
        return pace.burst

    def charge(self, pace: Pace, now: float) -> None:
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
class _Meter:
    """Sums that fade of what was granted lately."""

    at: float
    since: float
    requests: float = 0.0
    tokens: float = 0.0

    def fade(self, now: float) -> None:
        past = max(0.0, now - self.at)
        if past > 6 * METER_US:
            self.since, self.requests, self.tokens = now, 0.0, 0.0
        left = math.exp(-past / METER_US)
        self.at, self.requests, self.tokens = now, self.requests * left, self.tokens * left

    def rate(self, total: float, window_us: float) -> float:
        long = max(self.at - self.since, METER_US / 10)
        return total / (METER_US * (1 - math.exp(-long / METER_US))) * window_us


@dataclass
class _Provider:
    meter: _Meter
    rates: dict[str, _Rate] = field(default_factory=dict)
    leases: dict[str, tuple[float, float]] = field(default_factory=dict)  # start, expiry
    flight: Learned | None = None
    most_in_flight: float = 0.0  # set by hand
    paused: float = 0.0
    paused_until: float = 0.0
    breaker: Breaker = field(default_factory=Breaker)
    line: Line = field(default_factory=Line)
    gap: float = 0.0
    settled_at: float = 0.0

    def rate(self, name: str) -> _Rate:
        return self.rates.setdefault(name, _Rate())


class MemoryLimiter:
    """The twin of RedisLimiter: the same decisions, on a clock that is handed in (seconds)."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # A machine may just have started: time 0 must lie long ago for every limit.
        self._origin_us = 10**15 - clock() * 1e6
        self._providers: dict[str, _Provider] = {}

    def reserve(
        self,
        provider: ProviderSpec,
        lease: str,
        tokens: int,
        ttl_s: float,
        patience_s: float = math.inf,
    ) -> Grant:
        """Takes one request, `tokens` tokens and a lease, or nothing; see ports.Limiter."""
        check_size(provider, tokens)
        wanted = paces(provider, tokens)
        with self._lock:
            state, now = self._state(provider), self._now()
            state.leases = {name: times for name, times in state.leases.items() if times[1] > now}
            if lease in state.leases:
                return Grant(0.0)
            asked = _Request(state, provider, wanted, lease, now, patience_s * 1e6)
            return asked.decide(tokens, ttl_s)

    def settle(
        self,
        provider: ProviderSpec,
        lease: str,
        reserved: int,
        used: int,
        feedback: Feedback = _NOTHING,
    ) -> float:
        """Returns the lease, corrects the limits by what the answer told; harmless when repeated.

        Returns for how many seconds the provider has not answered anybody.
        """
        with self._lock:
            state, now = self._state(provider), self._now()
            in_flight = sum(expiry > now for _, expiry in state.leases.values())
            times = state.leases.pop(lease, None)
            if times is None or times[1] <= now:
                return 0.0
            wanted = paces(provider, reserved)
            events: list[str] = []
            _correct(state, wanted, feedback, used - reserved, times[0], now, events)
            _note_answer(state.breaker, lease, feedback.verdict, now, events)
            _Setback(state, provider, wanted, feedback, times[0], in_flight, now, events).take()
            for event in events:
                log.warning("%s", describe(provider.name, event))
            return (now - state.breaker.since) / 1e6 if state.breaker.opens else 0.0

    def pause(self, provider: ProviderSpec, seconds: float) -> None:
        """Lets nobody start a call to this provider for so long; never shortens a pause."""
        with self._lock:
            state, now = self._state(provider), self._now()
            if now + seconds * 1e6 > state.paused_until:
                state.paused_until, state.paused = now + seconds * 1e6, now

    def set_limits(self, key: str, **limits: float | None) -> None:
        """Sets limits by hand until they are unset with None; takes effect at once."""
        with self._lock:
            state = self._providers.setdefault(key, _Provider(_Meter(self._now(), self._now())))
            for name, amount in limits.items():
                if name == "concurrency":
                    state.most_in_flight, state.flight = amount or 0.0, None
                else:
                    rate = state.rate(name)
                    rate.set, rate.learned = amount or 0.0, None

    def _now(self) -> float:
        return float(round(self._clock() * 1e6 + self._origin_us))

    def _state(self, provider: ProviderSpec) -> _Provider:
        key, now = provider_key(provider), self._now()
        return self._providers.setdefault(key, _Provider(_Meter(now, now)))


@dataclass
class _Request:
    """One call that asks: what reserve.lua does."""

    state: _Provider
    provider: ProviderSpec
    wanted: tuple[Pace, ...]
    lease: str
    now: float
    patience: float
    unit: float = _ALONE_US
    whole: float = _ALONE_US  # the unit before it is divided by the run's priority

    def decide(self, tokens: int, ttl_s: float) -> Grant:
        state, now = self.state, self.now
        forced = self._limits()
        longest, blocked = self._longest(forced)
        cap, is_found = self._cap()
        if cap:
            self.unit = max(self.unit, state.gap)
        self.whole, self.unit = self.unit, math.ceil(self.unit / self.provider.priority)
        state.line.prune(self.unit, now)
        if state.paused_until > now:
            return self._wait("pause", state.paused_until - now, 1000.0)
        breaker = state.breaker
        if breaker.opens and now < breaker.until:
            return self._wait("outage", breaker.until - now, SPACING_US[1])
        if breaker.opens and breaker.probe and now < breaker.probe_until:
            return self._wait("outage", 10 * SPACING_US[1], SPACING_US[1])
        if cap and len(state.leases) >= cap:
            if state.flight is not None and is_found:
                state.flight.grow(now)
            spacing = max(SPACING_US[0], min(state.gap / 4 or SPACING_US[1], SPACING_US[1]))
            return self._wait("concurrency", spacing, spacing)
        if blocked is not None:
            rate = state.rate(blocked.name)
            if rate.learned is not None and rate.learned.amount <= blocked.amount:
                rate.learned.grow(now)
            step = blocked.step_us(rate.burst_now(blocked, now))
            return self._wait(blocked.name, longest, blocked.cost * step)
        if not state.line.is_turn(self.lease, self.unit, now):
            return self._wait("turn", max(self.whole, SPACING_US[0]), 0.0)
        return self._grant(forced, tokens, ttl_s, is_found=is_found)

    def _limits(self) -> list[tuple[Pace, bool, float]]:
        forced = []
        for pace in self.wanted:
            rate = self.state.rate(pace.name)
            if self.provider.limits.adaptive and pace.name == "rpm" and rate.learned is None:
                rate.learned = Learned(FIRST, grown=self.now)
            forced.append(rate.in_force(pace))
        return forced

    def _longest(self, forced: list[tuple[Pace, bool, float]]) -> tuple[float, Pace | None]:
        longest, blocked = 1.0, None
        for pace, _, _ in forced:
            if not pace.amount:
                continue
            rate = self.state.rate(pace.name)
            burst = rate.burst_now(pace, self.now)
            step = pace.step_us(burst)
            wait = rate.tat + (pace.cost - burst) * step - self.now
            self.unit = max(self.unit, pace.cost * step)
            if wait > longest:
                longest, blocked = wait, pace
        return longest, blocked

    def _cap(self) -> tuple[float, bool]:
        """How many calls may be in flight (0: any number), and whether that was found out."""
        cap = self.state.most_in_flight or self.provider.limits.concurrency or 0
        is_found = False
        if self.state.flight is not None:
            found = max(1, math.floor(self.state.flight.amount))
            is_found = not cap or found < cap
            cap = found if is_found else cap
        breaker = self.state.breaker
        if not breaker.opens and breaker.fails >= SLOW_AFTER:
            cap = min(cap or SLOW_CALLS, SLOW_CALLS)
        return cap, is_found

    def _wait(self, name: str, wait: float, spread: float) -> Grant:
        line, patience, now = self.state.line, self.patience, self.now
        placed = line.join(self.lease, self.unit, wait, spread, patience, now)
        if placed is None:
            placed = line.come_back(self.lease, self.whole, name, wait, patience, now)
        return Grant(max(1, math.ceil(placed)) / 1e6, name)

    def _grant(
        self,
        forced: list[tuple[Pace, bool, float]],
        tokens: int,
        ttl_s: float,
        *,
        is_found: bool,
    ) -> Grant:
        state, now = self.state, self.now
        is_adaptive = self.provider.limits.adaptive
        for pace, is_learned, most in forced:
            rate = state.rate(pace.name)
            if pace.amount:
                rate.charge(pace, now)
            if rate.learned is not None:
                if not is_adaptive and most and not is_learned:
                    rate.learned = None  # it has grown back
                else:
                    rate.learned.spent += pace.cost
        if (state.most_in_flight or self.provider.limits.concurrency) and not is_found:
            state.flight = None
        is_probe = state.breaker.opens > 0
        if is_probe:
            state.breaker.probe, state.breaker.probe_until = self.lease, now + ttl_s * 1e6
        state.meter.fade(now)
        state.meter.requests += 1
        state.meter.tokens += tokens
        state.line.leave(self.lease, self.unit)
        state.leases[self.lease] = (now, now + ttl_s * 1e6)
        return Grant(0.0, is_probe=is_probe)


def _correct(
    state: _Provider,
    wanted: tuple[Pace, ...],
    feedback: Feedback,
    difference: int,
    start: float,
    now: float,
    events: list[str],
) -> None:
    """Takes over the tokens really used, and what the provider told of its limits."""
    past = max(0.0, min(now - state.settled_at, 5e6)) if state.settled_at else 0.0
    state.gap = round(0.9 * state.gap + 0.1 * past)
    state.settled_at = now
    for pace in wanted:
        rate = state.rate(pace.name)
        if pace.unit == "tokens":
            rate.correct(rate.in_force(pace)[0], difference, start)
        if pace.name == "tpm":
            state.meter.fade(now)
            state.meter.tokens = max(0.0, state.meter.tokens + difference)
        signal = read_signal(pace, feedback.quotas)
        forced = rate.in_force(pace)[0]
        if signal.hold_us and forced.amount:
            # The burst is not for this: nobody goes before the hold is over.
            free = (forced.burst - 1) * forced.step_us(forced.burst)
            rate.tat = max(rate.tat, math.ceil(now + signal.hold_us + free))
        most = rate.set or pace.amount
        if signal.told and (not most or signal.told < most):
            if signal.told != rate.told:
                events.append(f"told {pace.name} {signal.told:g}")
            rate.told = signal.told
        elif signal.told:
            rate.told = 0.0


def _note_answer(
    breaker: Breaker, lease: str, verdict: Verdict, now: float, events: list[str]
) -> None:
    if verdict in (Verdict.DOWN, Verdict.OVERLOADED):
        if breaker.fail(lease, now):
            events.append("open")
    elif verdict is Verdict.UNSENT:
        if lease == breaker.probe:
            breaker.probe = ""
    elif breaker.answer(lease):
        events.append("closed")


@dataclass
class _Setback:
    """A call that was refused: what settle.lua does then."""

    state: _Provider
    provider: ProviderSpec
    wanted: tuple[Pace, ...]
    feedback: Feedback
    start: float
    in_flight: int
    now: float
    events: list[str]

    def take(self) -> None:
        """Stops everybody once, and lowers the limit that was in the way."""
        feedback = self.feedback
        after = -1.0 if feedback.retry_after_s is None else feedback.retry_after_s * 1e6
        if feedback.verdict is Verdict.REFUSED:
            limit = feedback.limit or self._guess()
            hold = self._less_in_flight() if limit == "concurrency" else self._slower(limit)
            self._stop(max(after, hold, 0.0))
        elif feedback.verdict is Verdict.OVERLOADED:
            self._stop(after if after >= 0 else OVERLOADED_US)
        elif after > 0:
            self._stop(after)

    def _guess(self) -> str:
        state = self.state
        has_tpm = any(p.name == "tpm" and state.rate("tpm").in_force(p)[0].amount
                      for p in self.wanted)  # fmt: skip
        return "tokens" if has_tpm and self.wanted[0].name != "rpm" else "requests"

    def _less_in_flight(self) -> float:
        state = self.state
        if state.flight is not None and self.start < state.flight.cut:
            return 0.0
        amount = float(max(1, self.in_flight))
        most = state.most_in_flight or self.provider.limits.concurrency
        amount = min(amount, most) if most else amount
        if state.flight is not None:
            amount = min(amount, max(1.0, state.flight.amount))
        state.flight, held = step_back(state.flight, amount, 1, 0, self.now)
        self.events.append(f"cut concurrency {amount:.6g} {state.flight.floor:.6g}")
        return held

    def _slower(self, limit: str) -> float:
        name = "tpm" if limit == "tokens" else "rpm"
        pace = next(one for one in self.wanted if one.name == name)
        rate, meter = self.state.rate(name), self.state.meter
        if rate.learned is not None and self.start < rate.learned.cut:
            return 0.0
        meter.fade(self.now)
        total = meter.tokens if name == "tpm" else meter.requests
        amount = max(
            least(max(1, pace.cost), pace.window_us), 1.1 * meter.rate(total, pace.window_us)
        )
        forced = rate.in_force(pace)[0].amount
        amount = min(amount, forced) if forced else amount
        rate.learned, held = step_back(rate.learned, amount, pace.cost, pace.window_us, self.now)
        self.events.append(f"cut {name} {amount:.6g} {rate.learned.floor:.6g}")
        return held

    def _stop(self, long: float) -> None:
        state = self.state
        if self.start >= state.paused:
            state.paused = self.now
        ends = state.paused + long
        if ends > self.now:
            state.paused_until = max(state.paused_until, ends)
