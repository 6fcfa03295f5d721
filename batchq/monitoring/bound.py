"""Computes what bounds a run right now, out of what is known of it; nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NEARLY = 0.9


@dataclass(frozen=True, slots=True)
class ProviderLoad:
    """How a provider is used at the moment, over all hosts: `limits` has (name, used, amount).

    `blocked_by` is what the last call had to wait for that had to.
    """

    name: str
    waiting: int
    limits: Sequence[tuple[str, float, float]]
    breaker: str = "closed"
    paused_s: float = 0.0
    blocked_by: str = ""


def bound_by(
    loads: Sequence[ProviderLoad],
    *,
    in_flight: int,
    slots: int,
    queued: int,
    has_more: bool = False,
    budget: str = "",
    uploads: str = "",
) -> str:
    """Names what keeps a run from going faster; "" where nothing is known to.

    `queued` are items that wait for a worker, `has_more` tells of batches that were not sent yet,
    `budget` says so where the budget is in the way, `uploads` where answers are waited for that
    come all at once.
    """
    if budget:
        return budget
    for load in loads:
        if load.breaker in ("open", "half-open"):
            return f"{load.name}: does not answer"
        if load.paused_s > 0:
            return f"{load.name}: paused by the provider"
    for load in loads:
        if load.waiting and load.blocked_by == "turn":
            return f"{load.name}: shared with other runs"
        if load.waiting and (limit := load.blocked_by or _tightest(load)):
            return f"{load.name} {limit}"
    if queued and slots and in_flight >= NEARLY * slots:
        full = next((load for load in loads if _is_full(load)), None)
        return f"{full.name} concurrency" if full else "workers"
    if uploads and not queued and not in_flight:
        return uploads
    if has_more and not queued:
        return "pacing"
    return "latency" if in_flight else ""


def _is_full(load: ProviderLoad) -> bool:
    """Whether as many calls as it allows are in flight, so that more workers would not help."""
    return any(
        name == "concurrency" and 0 < NEARLY * amount <= used for name, used, amount in load.limits
    )


def _tightest(load: ProviderLoad) -> str:
    shares = [(used / amount, name) for name, used, amount in load.limits if amount > 0]
    return max(shares, default=(0.0, ""))[1]
