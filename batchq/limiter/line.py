"""Who is next when several runs wait for one provider: start-time fair queueing.

A call that has to wait is given a tag: where its run stands in service received, or where the
least served of those who wait stands if that is further. So each run gets its share whatever its
number of waiters, a run that was idle has nothing saved up, and none waits for ever. The place in
the order of tags tells when to come back. Nobody is kept out for the sake of a waiter that sleeps
on: only one whose moment has come stands in the way of other runs.

A call that may not wait for as long as its place would have it is not in line, or the moments of
all those who are elsewhere would pass unused. It is told a moment to come back, after the others
of its run: a little oftener than calls can go, so that the line is never empty, and at least ten
times a second, so that a limit that was raised is seen; ten thousand items ask no more often than
a hundred. Times in microseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

GRACE_US = 2_000_000.0
"""A waiter that did not come back so long after its moment is gone."""
LATE_US = 250_000.0
SOON_US = 50_000.0
AHEAD_US = 20_000.0
HEADS = 4
SPACING_MIN_US, SPACING_MAX_US = 5_000.0, 50_000.0
"""Who waits for a call in flight to end asks again at such a spacing, each after the other."""
AWAY_SHARE = 0.8
"""Those who are away come back so much sooner one after the other than calls can go."""
AWAY_SPACING_US = 100_000.0
LOOK_US = 15_000_000.0
"""A wait that somebody may shorten, by setting a limit, is looked at again after so long."""
HOPELESS_US = 86_400e6
"""A wait that is told as it is: nobody waits for so long."""
PAUSE, CONCURRENCY, OUTAGE, TURN = -1, -2, -3, -4
"""What a call may wait for besides a limit, which the scripts name by its index."""
NAMES = {PAUSE: "pause", CONCURRENCY: "concurrency", OUTAGE: "outage", TURN: "turn"}
FIXED = ("pause", "outage")


def run_of(lease: str) -> str:
    """The run that a lease belongs to."""
    return lease.partition("/")[0]


@dataclass(slots=True)
class Line:
    """Those who wait for one provider: the twin of what the scripts keep in sorted sets."""

    tags: dict[str, float] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    served: dict[str, float] = field(default_factory=dict)  # run -> where its next tag begins
    away: dict[str, float] = field(default_factory=dict)  # run -> when the last one comes back
    reached: float = 0.0

    def prune(self, unit: float, now: float) -> None:
        """Forgets waiters that did not come back, and what their runs were charged for them."""
        for lease in [one for one, at in self.due.items() if at <= now - GRACE_US]:
            del self.due[lease], self.tags[lease]
            run = run_of(lease)
            self.served[run] = self.served.get(run, 0.0) - unit

    def join(
        self, lease: str, unit: float, wait: float, spread: float, patience: float, now: float
    ) -> float | None:
        """Puts a call in its place, and says how long to wait there; None if that is too long."""
        run, is_new = run_of(lease), lease not in self.tags
        own = self._next_tag(run) if is_new else self.tags[lease]
        wait += sum((tag, one) < (own, lease) for one, tag in self.tags.items()) * spread
        if math.ceil(wait) > patience:
            if not is_new:
                del self.tags[lease], self.due[lease]
                self.served[run] = self.served.get(run, 0.0) - unit
            return None
        if is_new:
            self.tags[lease], self.served[run] = own, own + unit
        self.due[lease] = now + wait
        return wait

    def come_back(
        self, lease: str, unit: float, name: str, wait: float, patience: float, now: float
    ) -> float:
        """How long a call stays away that is not in line; `unit` is the time between two calls."""
        spacing = SPACING_MAX_US if name == "outage" else min(AWAY_SPACING_US, AWAY_SHARE * unit)
        if name not in FIXED and wait <= HOPELESS_US:
            wait = min(wait, LOOK_US)
        run = run_of(lease)
        at = math.ceil(max(now + max(patience, wait), self.away.get(run, 0.0)) + spacing)
        self.away[run] = at
        return at - now

    def is_turn(self, lease: str, unit: float, now: float) -> bool:
        """Whether no other run is before this call, and there to go."""
        own = self.tags.get(lease)
        if own is None:
            own = self._next_tag(run_of(lease))
        limit = own - max(2 * unit, AHEAD_US)
        for one, tag in self._heads():
            if run_of(one) != run_of(lease) and tag < limit:
                at = self.due[one]
                if now - LATE_US <= at <= now + SOON_US:
                    return False
        return True

    def leave(self, lease: str, unit: float) -> None:
        """Takes out a call that goes; one of the same run that was before it changes places."""
        if not self.tags:
            return
        own = self.tags.get(lease)
        if own is None:
            own = self._next_tag(run_of(lease))
            self.served[run_of(lease)] = own + unit
        head, tag = self._heads()[0]
        if head != lease and run_of(head) == run_of(lease) and tag < own:
            self.tags[head], own = own, tag
        self.tags.pop(lease, None)
        self.due.pop(lease, None)
        self.reached = math.ceil(max(self.reached, own))
        if not self.tags:
            self.served.clear()
            self.reached = 0.0

    def _next_tag(self, run: str) -> float:
        return max(self._head(), self.served.get(run, 0.0))

    def _head(self) -> float:
        return min(self.tags.values(), default=self.reached)

    def _heads(self) -> list[tuple[str, float]]:
        return sorted(self.tags.items(), key=lambda one: (one[1], one[0]))[:HEADS]
