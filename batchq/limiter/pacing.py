"""How one rate limit is paced: the numbers that both limiters, Redis and memory, work with.

Each rate limit is a GCRA: a theoretical arrival time (TAT) that every grant pushes forward by
`cost * step`, and a grant needs `TAT + cost * step <= now + burst * step`. With
`step = window / (amount - burst + 1)` no window of the limit's period ever holds more than
`amount`: of the grants of a window, all but the tolerated `burst` push the TAT, and the TAT
cannot leave the window. So a small burst costs little of the rate (the `burst - 1` that it may
run ahead), and a large one much. It is half a second's worth, at most 1 %: enough to make up for
a waiter that wakes late. The window is a little longer than the period, as requests that leave
in one order arrive in another.

A request larger than the burst, which is usual for tokens, goes when the TAT lies far enough in
the past, and the burst then grows to its size (at most half the amount), so that a stream of
requests of one size runs at its full rate. It falls back when no such request came for two
windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from batchq.errors import RequestTooLarge
from batchq.plan import ProviderSpec, RateLimit

_BURST_S = 0.5
_BURST_SHARE = 0.01
_SLACK_S = 0.25
_SLACK_SHARE = 0.01

BOOKED_AHEAD_US = 1_000_000
"""Waiters are given a moment of their own within this time; those beyond it ask again."""

POLL_US = 50_000
POLL_SPACING_US = 1_000
"""Who waits for a lease asks again after 50 ms, a millisecond later for each other waiter."""


@dataclass(frozen=True, slots=True)
class Pace:
    """One rate limit in whole units and microseconds."""

    name: str
    cost: int
    amount: int
    window_us: int
    burst: int

    @property
    def largest_burst(self) -> float:
        """How far the burst may grow: beyond half the amount the rate would suffer."""
        return max(self.burst, self.amount / 2)

    def step_us(self, burst: float) -> float:
        """The time that one unit takes when `burst` units may come at once."""
        return self.window_us / (self.amount - burst + 1)


def paces(provider: ProviderSpec, tokens: int) -> tuple[Pace, ...]:
    """Translates a provider's limits for a call of `tokens`; raises RequestTooLarge."""
    found: list[Pace] = []
    for rate in provider.limits.rates:
        pace = _pace(rate, tokens)
        if pace.cost > pace.amount:
            raise RequestTooLarge(
                f"provider {provider.name}: this call needs about {tokens} tokens, more than the "
                f"{rate.name} limit of {rate.amount:g} per {rate.period_s:g} s; shorten the item "
                "or lower options.max_tokens"
            )
        found.append(pace)
    return tuple(found)


def refund_paces(provider: ProviderSpec, reserved: int, used: int) -> Sequence[Pace]:
    """The token limits to be corrected, with the difference as their cost."""
    if reserved == used:
        return ()
    return [_pace(rate, used - reserved) for rate in provider.limits.rates if rate.unit == "tokens"]


def _pace(rate: RateLimit, tokens: int) -> Pace:
    amount, period_s = rate.amount, rate.period_s
    if amount < 1:  # half a request a second is one request in two
        amount, period_s = 1.0, period_s / amount
    window_s = period_s + min(_SLACK_S, _SLACK_SHARE * period_s)
    burst = max(1, int(amount * min(_BURST_S / period_s, _BURST_SHARE)))
    cost = tokens if rate.unit == "tokens" else 1
    return Pace(rate.name, cost, int(amount), math.ceil(window_s * 1e6), burst)
