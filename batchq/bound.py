"""Computes what bounds a run right now, out of what is known of it; nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NEARLY = 0.9


@dataclass(frozen=True, slots=True)
class ProviderLoad:
    """How a provider is used at the moment, over all hosts: `limits` has (name, used, amount)."""

    name: str
    waiting: int
    limits: Sequence[tuple[str, float, float]]
    breaker: str = "closed"
    paused_s: float = 0.0


def bound_by(
    loads: Sequence[ProviderLoad],
    *,
    in_flight: int,
    slots: int,
    queued: int,
    delay_s: float = 0.0,
    budget: str = "",
) -> str:
    """Names what keeps a run from going faster; "" where nothing is known to.

    `queued` are items that wait for a worker, `delay_s` is the time to the next batch where only
    that is waited for, `budget` says so where the budget is in the way.
    """
    if budget:
        return budget
    for load in loads:
        if load.breaker in ("open", "half-open"):
            return f"{load.name}: does not answer"
        if load.paused_s > 0:
            return f"{load.name}: paused by the provider"
    for load in loads:
        if load.waiting and (tightest := _tightest(load)):
            return f"{load.name} {tightest}"
    if queued and slots and in_flight >= NEARLY * slots:
        return "workers"
    if delay_s > 0 and not queued:
        return "pacing"
    return "latency" if in_flight else ""


def _tightest(load: ProviderLoad) -> str:
    shares = [(used / amount, name) for name, used, amount in load.limits if amount > 0]
    return max(shares, default=(0.0, ""))[1]
