"""Finds a limit that nobody told: grows while it holds, steps back when a call is refused.

Between two refusals a limit is a function of how long somebody was held back by it (its `age`),
so nothing has to be written while it grows, and a limit that nobody uses does not grow. First it
doubles. Once a call was refused, it follows a cubic as TCP's CUBIC does: quickly back to just
below what was refused (`top`), slowly past it, then faster, in case the provider allows more now.

A server that refuses has nothing saved up, so what it accepted from one refusal to the next is its
limit, if all that time we would have sent more. A refusal at the end of a long growth costs 5 % of
that. Where the growth went far beyond what was sent on the whole, it was met on the way: then
the limit lies between the two. A refusal soon after a step back says that the limit is far off.
Refusals of calls that were granted before a step back are the same event and count once. All
times in microseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FIRST = 120.0  # a minute, of requests: where the search begins
DOUBLE_US = 1_500_000.0
QUICK_US = 3_000_000.0
PLATEAU_US = 20_000_000.0
UNSURE_US = 5_000_000.0
PLATEAU_CALLS = 200.0
"""A refusal in so many calls is what probing for more may cost: below one in a hundred."""
NEAR = 1.2
"""What was accepted is the limit if the growth went no further beyond it."""
BOUND_SHARE = 0.7
"""A limit that held calls back for so much of the time was all but used up."""
SLOWEST_US = 30_000_000.0
"""No limit is taken to be lower than a call in so long."""
HOLD_US = 250_000.0
LONGEST_HOLD_US = 16_000_000.0
LARGEST = 1e12


@dataclass(slots=True)
class Learned:
    """What is known of one limit. `top` 0: no call was refused yet.

    `spent` is what was granted since the last step back, `quick` how many of these came in a row.
    """

    floor: float
    top: float = 0.0
    plateau: float = 0.0
    age: float = 0.0
    grown: float = 0.0
    cut: float = 0.0
    spent: float = 0.0
    quick: int = 0

    @property
    def amount(self) -> float:
        """What the limit is taken to be now."""
        if self.top == 0:
            return float(min(LARGEST, self.floor * 2 ** min(60, self.age / DOUBLE_US)))
        x = (self.age - self.plateau) / self.plateau
        return min(LARGEST, self.top + (self.top - self.floor) * x**3)

    def grow(self, now: float) -> None:
        """Lets it grow for the time that somebody was held back by it; at most a second."""
        self.age += max(0.0, min(now - self.grown, 1e6))
        self.grown = now


def step_back(
    known: Learned | None, amount: float, cost: float, window_us: float, now: float
) -> tuple[Learned, float]:
    """Lowers a limit of `amount` that refused a call of `cost`; also says how long to hold all.

    `window_us` is the time that the amount is for; 0 for calls in flight.
    """
    cost = max(1.0, cost)
    if known is not None and known.cut and known.age < QUICK_US:
        return _far_off(known, amount, cost, window_us, now)
    is_first = known is not None and known.top == 0
    share = 0.5 if is_first else 0.95
    if known is not None and known.cut and window_us:
        accepted = _accepted(known, cost, window_us, now)
        amount = min(amount, accepted if amount <= NEAR * accepted else (amount + accepted) / 2)
    plateau = UNSURE_US if is_first else max(PLATEAU_US, PLATEAU_CALLS * window_us * cost / amount)
    floor = max(least(cost, window_us), amount * share)
    held = HOLD_US if window_us else 0.0
    return Learned(floor, max(amount, floor), plateau, 0, now + held, now), held


def least(cost: float, window_us: float) -> float:
    """The lowest that a limit may be taken to be, for calls of such a cost."""
    return max(1.0, cost * window_us / SLOWEST_US)


def _accepted(known: Learned, cost: float, window_us: float, now: float) -> float:
    """What was accepted since the last step back; infinite where others held the calls back."""
    if known.age < BOUND_SHARE * (now - known.cut):
        return math.inf
    return max(0.0, known.spent - cost) / max(1.0, now - known.cut) * window_us


def _far_off(
    known: Learned, amount: float, cost: float, window_us: float, now: float
) -> tuple[Learned, float]:
    quick = known.quick + 1
    if not window_us:
        floor = max(1.0, amount * 0.7)
        return Learned(floor, max(floor, amount), UNSURE_US, 0, now, now, 0, quick), 0.0
    accepted = max(0.0, known.spent - cost)
    measured = accepted / max(1.0, now - known.cut) * window_us
    floor = max(least(cost, window_us), min(0.8 * amount, max(0.15 * amount, 0.95 * measured)))
    held = HOLD_US if accepted else min(LONGEST_HOLD_US, HOLD_US * 2 ** min(quick, 10))
    top = max(floor, min(amount, 1.2 * floor))
    return Learned(floor, top, UNSURE_US, 0, now + held, now, 0, quick), held
