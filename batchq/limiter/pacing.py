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
from dataclasses import dataclass, replace
from functools import lru_cache

from batchq.endpoint import Limits, ProviderSpec, RateLimit, Unit
from batchq.errors import RequestTooLarge

_BURST_S = 0.5
_BURST_SHARE = 0.01
_SLACK_S = 0.25
_SLACK_SHARE = 0.01
MINUTE_S = 60.0
_MINUTELY: tuple[tuple[str, Unit], ...] = (("rpm", "requests"), ("tpm", "tokens"))


@dataclass(frozen=True, slots=True)
class Pace:
    """One rate limit in units and microseconds; an amount of 0 is no limit of our own.

    `share` is the part of the amount that may come as a burst.
    """

    name: str
    unit: Unit
    cost: int
    amount: float
    window_us: int
    share: float

    @property
    def burst(self) -> int:
        """How many units may come at once."""
        return max(1, math.floor(self.amount * self.share))

    @property
    def largest_burst(self) -> float:
        """How far the burst may grow: beyond half the amount the rate would suffer."""
        return max(self.burst, self.amount / 2)

    def step_us(self, burst: float) -> float:
        """The time that one unit takes when `burst` units may come at once."""
        return self.window_us / (self.amount - burst + 1)

    def at(self, amount: float) -> Pace:
        """The same limit with another amount."""
        return self if amount == self.amount else replace(self, amount=amount)


def check_size(provider: ProviderSpec, tokens: int) -> None:
    """Raises RequestTooLarge for a call that needs more tokens than a whole limit."""
    for rate in provider.limits.rates:
        if rate.unit == "tokens" and tokens > max(1, int(rate.amount)):
            raise RequestTooLarge(
                f"provider {provider.name}: this call needs about {tokens} tokens, more than the "
                f"{rate.name} limit of {rate.amount:g} per {rate.period_s:g} s; shorten the item "
                "or lower options.max_tokens"
            )


def paces(provider: ProviderSpec, tokens: int) -> tuple[Pace, ...]:
    """Translates a provider's limits for a call of `tokens`."""
    return tuple(
        replace(one, cost=tokens if one.unit == "tokens" else 1)
        for one in paces_of(provider.limits)
    )


@lru_cache(maxsize=256)
def paces_of(limits: Limits) -> tuple[Pace, ...]:
    """Translates limits, for calls of one request or token.

    A limit a minute on requests and on tokens is always among them: where the manifest has none,
    one may be found, told by the provider or set by hand.
    """
    found = [_pace(rate) for rate in limits.rates]
    names = {pace.name for pace in found}
    for name, unit in _MINUTELY:
        if name not in names:
            found.append(replace(_pace(RateLimit(name, unit, MINUTE_S, MINUTE_S)), amount=0.0))
    return tuple(found)


def _pace(rate: RateLimit) -> Pace:
    amount, period_s = rate.amount, rate.period_s
    if amount < 1:  # half a request a second is one request in two
        amount, period_s = 1.0, period_s / amount
    window_s = period_s + min(_SLACK_S, _SLACK_SHARE * period_s)
    share = min(_BURST_S / period_s, _BURST_SHARE)
    return Pace(rate.name, rate.unit, 1, float(int(amount)), math.ceil(window_s * 1e6), share)
