"""What a provider's answer says about its limits, as numbers for the limiter to take over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchq.limiter.pacing import MINUTE_S, Pace
from batchq.ports import Quota

_LONGEST_RESET_S = 120.0
"""A quota that takes longer to fill is one a day: its amount is none a minute."""


@dataclass(frozen=True, slots=True)
class Signal:
    """`told` is the provider's own limit, 0 where it told none; nobody goes for `hold_us`."""

    told: float = 0.0
    hold_us: float = 0.0


def read_signal(pace: Pace, quotas: Sequence[Quota]) -> Signal:
    """Finds what the quotas say of one of our limits a minute.

    A quota with nothing left holds everybody until there is something again. One that counts in
    fixed windows shows by a reset that is further away than refilling takes; what is left is then
    spread over the rest of the window.
    """
    unit = {"rpm": "requests", "tpm": "tokens"}.get(pace.name)
    quota = next((one for one in quotas if one.unit == unit), None)
    if unit is None or quota is None:
        return Signal()
    told = quota.limit if quota.limit is not None and _is_by_the_minute(quota) else 0.0
    return Signal(told, _hold_s(quota, pace) * 1e6)


def _is_by_the_minute(quota: Quota) -> bool:
    if quota.limit is None or quota.reset_s is None or quota.remaining is None:
        return quota.limit is not None
    used = quota.limit - quota.remaining
    return used > 0 and quota.reset_s * quota.limit / used <= _LONGEST_RESET_S


def _hold_s(quota: Quota, pace: Pace) -> float:
    left, reset_s = quota.remaining, quota.reset_s
    if left is None or reset_s is None:
        return 0.0
    limit = quota.limit if quota.limit is not None else pace.amount
    if limit <= 0:
        return 0.0
    refill_s = max(0.0, limit - left) * MINUTE_S / limit
    if reset_s <= 1.25 * refill_s + 1.0:  # it fills all the time
        return MINUTE_S / limit * max(1.0, pace.cost) if left < 1 else 0.0
    if left >= limit * reset_s / MINUTE_S:
        return 0.0
    return reset_s / (left / max(1.0, pace.cost) + 1.0)
