"""Stands back from a provider that does not answer: fewer calls, then none, then one at a time.

Failures are those of a provider as a whole: no connection, no answer in time, HTTP 5xx. Any other
answer, a refusal too, shows that it is there. All times in microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOW_AFTER = 4
SLOW_CALLS = 2
OPEN_AFTER = 8
OPEN_US = 1_000_000.0
LONGEST_OPEN_US = 60_000_000.0


@dataclass(slots=True)
class Breaker:
    """`fails` in a row since the moment `since`; `opens` in a row, shut until `until`.

    `opened` is when the last open began, `probe` the call that tries whether it is over.
    """

    fails: int = 0
    since: float = 0.0
    opens: int = 0
    opened: float = 0.0
    until: float = 0.0
    probe: str = ""
    probe_until: float = 0.0

    def word(self, now: float) -> str:
        """Its state in one word."""
        if self.opens:
            return "open" if now < self.until else "half-open"
        return "slow" if self.fails >= SLOW_AFTER else "closed"

    def fail(self, lease: str, now: float) -> bool:
        """Takes a failure; says whether this opened it."""
        if self.opens and lease != self.probe:
            return False  # it was granted before: no news
        if not self.fails:
            self.since = now
        self.fails += 1
        if not self.opens and self.fails < OPEN_AFTER:
            return False
        self.opens += 1
        self.opened = now
        self.until = now + min(LONGEST_OPEN_US, OPEN_US * 2 ** min(self.opens - 1, 10))
        self.probe, self.probe_until = "", 0.0
        return self.opens == 1

    def answer(self, lease: str) -> bool:
        """Takes an answer; says whether this closed it."""
        if self.opens and lease != self.probe:
            return False  # of a call from before; the probe decides
        was_open = self.opens > 0
        self.fails, self.opens, self.since, self.probe = 0, 0, 0.0, ""
        return was_open
