"""Rate limits and leases within one process: for tests, and for runs without a broker."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from batchq.limiter.keys import provider_key
from batchq.limiter.pacing import (
    BOOKED_AHEAD_US,
    POLL_SPACING_US,
    POLL_US,
    Pace,
    paces,
    refund_paces,
)
from batchq.plan import ProviderSpec
from batchq.ports import Grant


@dataclass
class _Rate:
    """What reserve.lua keeps of one rate limit, in microseconds."""

    tat: float = 0.0
    booked: float = 0.0
    burst: float = 0.0
    large_at: float = 0.0
    idle_at: float = 0.0

    def burst_now(self, pace: Pace, now: float) -> float:
        if self.burst and now - self.large_at < 2 * pace.window_us:
            return min(max(pace.burst, self.burst), pace.largest_burst)
        return pace.burst


@dataclass
class _Provider:
    rates: dict[str, _Rate] = field(default_factory=dict)
    leases: dict[str, tuple[float, float]] = field(default_factory=dict)  # start, expiry
    paused_until: float = 0.0
    next_poll: float = 0.0


class MemoryLimiter:
    """The twin of RedisLimiter: the same decisions, on a clock that is handed in (seconds)."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock = clock
        self._uniform = uniform
        self._lock = threading.Lock()
        # A machine may just have started: time 0 must lie long ago for every limit.
        self._origin_us = 10**15 - clock() * 1e6
        self._providers: dict[str, _Provider] = {}

    def reserve(self, provider: ProviderSpec, lease: str, tokens: int, ttl_s: float) -> Grant:
        """Takes one request, `tokens` tokens and a lease, or nothing of these."""
        wanted = paces(provider, tokens)
        with self._lock:
            state, now = self._state(provider), self._now()
            if lease in state.leases:
                return Grant(0.0)
            if state.paused_until > now:
                return Grant((state.paused_until - now) / 1e6, "pause")
            state.leases = {name: times for name, times in state.leases.items() if times[1] > now}
            cap = provider.limits.concurrency
            if cap and len(state.leases) >= cap:
                return self._poll(state, now)
            blocked = self._blocked(state, wanted, now)
            if blocked:
                return blocked
            for pace in wanted:
                _charge(state.rates[pace.name], pace, now)
            state.leases[lease] = (now, now + ttl_s * 1e6)
            return Grant(0.0)

    def settle(self, provider: ProviderSpec, lease: str, reserved: int, used: int) -> None:
        """Returns the lease and corrects the token limits; harmless when done twice."""
        with self._lock:
            state = self._state(provider)
            times = state.leases.pop(lease, None)
            if times is None:
                return
            for pace in refund_paces(provider, reserved, used):
                rate = state.rates.get(pace.name)
                if rate is None:
                    continue
                if pace.cost > 0:
                    burst = max(pace.burst, min(rate.burst, pace.largest_burst))
                    rate.tat += pace.cost * pace.step_us(burst)
                elif times[0] >= rate.idle_at:
                    rate.tat += pace.cost * pace.step_us(pace.burst)
                    rate.booked += pace.cost * pace.step_us(pace.burst)

    def pause(self, provider: ProviderSpec, seconds: float) -> None:
        """Lets nobody start a call to this provider for so long; never shortens a pause."""
        with self._lock:
            state = self._state(provider)
            state.paused_until = max(state.paused_until, self._now() + seconds * 1e6)

    def _now(self) -> float:
        return self._clock() * 1e6 + self._origin_us

    def _state(self, provider: ProviderSpec) -> _Provider:
        return self._providers.setdefault(provider_key(provider), _Provider())

    def _poll(self, state: _Provider, now: float) -> Grant:
        moment = max(now + POLL_US, state.next_poll)
        if moment > now + BOOKED_AHEAD_US:
            return Grant(self._uniform(0.5, 1.0), "concurrency")
        state.next_poll = moment + POLL_SPACING_US
        return Grant((moment - now) / 1e6, "concurrency")

    def _blocked(self, state: _Provider, wanted: tuple[Pace, ...], now: float) -> Grant | None:
        """The limit that takes longest to let this call through, and when to ask again."""
        waits: list[tuple[float, Pace]] = []
        for pace in wanted:
            rate = state.rates.setdefault(pace.name, _Rate())
            burst = rate.burst_now(pace, now)
            waits.append((rate.tat + (pace.cost - burst) * pace.step_us(burst) - now, pace))
        if not waits:
            return None
        longest, pace = max(waits, key=lambda wait: wait[0])
        if longest <= 0:
            return None
        rate = state.rates[pace.name]
        moment = max(now + longest, rate.booked)
        if moment > now + max(BOOKED_AHEAD_US, longest):
            return Grant(longest / 1e6 + self._uniform(0.5, 1.0), pace.name)
        rate.booked = moment + pace.cost * pace.step_us(rate.burst_now(pace, now))
        return Grant((moment - now) / 1e6, pace.name)


def _charge(rate: _Rate, pace: Pace, now: float) -> None:
    burst = rate.burst_now(pace, now)
    size = min(pace.cost, pace.largest_burst)
    extra = max(0.0, size - burst)  # the burst grows: see reserve.lua
    burst = max(burst, size)
    if burst > pace.burst and pace.cost * 2 > burst:
        rate.burst, rate.large_at = burst, now
    if rate.tat < now:
        rate.idle_at = now
    rate.tat = max(rate.tat, now) + (pace.cost + extra) * pace.step_us(burst)
