"""Follows a run until it is over, or until somebody has seen enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from batchq.actions.exits import EXIT_INTERRUPTED, EXIT_TIMED_OUT, INTERRUPTED, exit_code
from batchq.actions.views import View
from batchq.errors import QueueError
from batchq.host.interrupts import Interrupts
from batchq.monitoring.bottleneck import what_bounds
from batchq.progress import Progress, RunState
from batchq.queue.control import stop
from batchq.runs.life import progress
from batchq.services import Services

POLL_S = 0.15
# A coordinator that died cannot say that it has nothing more to do.
QUIET_S = 10.0
NOBODY_WORKS_S = 8.0
BOUND_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Ended:
    """The last that was seen of a run, and the exit code it comes to."""

    progress: Progress
    code: int
    is_over: bool


@dataclass
class Follower:
    """One look after another at a run.

    With `pauses`, a Ctrl-C or the end of `timeout_s` pauses the run, which nobody else works on;
    else they only end the looking. `check` raises if the run cannot go on. `brings_workers` tells
    that this command has started workers: where it has not, somebody else must have.
    """

    run: str
    services: Services
    view: View
    interrupts: Interrupts
    pauses: bool
    brings_workers: bool = False
    check: Callable[[], None] = lambda: None
    timeout_s: float | None = None
    _code: int | None = None
    _quiet_since: float | None = None
    _said_nobody: bool = False
    _bound_by: str = ""
    _bound_at: float = -BOUND_EVERY_S
    _done: int = 0
    _done_at: float = field(default_factory=time.monotonic)

    def follow(self) -> Ended:
        """Returns when the run is over, or the looking is."""
        began = time.monotonic()
        while True:
            self.check()
            seen = self._look()
            self.view.show(seen)
            if self._is_settled(seen):
                code = exit_code(seen) if self._code is None else self._code
                return Ended(seen, code, is_over=True)
            waited = time.monotonic() - began
            if self._code is None and (wanted := self._wants_to_end(waited)) is not None:
                if not self.pauses:
                    return Ended(seen, wanted, is_over=False)
                self._code = wanted
                self._pause(seen)
            self._warn_if_nobody_works(seen)
            time.sleep(POLL_S)

    def _look(self) -> Progress:
        seen = progress(self.run, self.services, time.time())
        if seen is None:
            raise QueueError(
                f"Redis does not know run {self.run} any more: it was emptied, or this is another "
                "one. Go on from the run folder with `batchq resume`."
            )
        now = time.monotonic()
        if now - self._bound_at >= BOUND_EVERY_S:
            self._bound_by, self._bound_at = what_bounds(seen, self.services), now
        return replace(seen, bound_by=self._bound_by)

    def _wants_to_end(self, waited: float) -> int | None:
        if self.interrupts.is_set:
            return EXIT_INTERRUPTED
        if self.timeout_s is not None and waited > self.timeout_s:
            return EXIT_TIMED_OUT
        return None

    def _pause(self, seen: Progress) -> None:
        if seen.state is RunState.RUNNING:
            reason = INTERRUPTED if self.interrupts.is_set else f"--timeout {self.timeout_s:g}"
            stop(self.run, RunState.PAUSED, reason, self.services)
        self.view.note(
            f"Pausing: {seen.in_flight} in flight will be finished. Ctrl-C again stops at once."
        )

    def _is_settled(self, seen: Progress) -> bool:
        if not seen.state.is_over:
            self._quiet_since = None
            return False
        ledger = self.services.ledger
        if seen.state is RunState.COMPLETED:
            return True
        is_done = not ledger.open_batches(self.run) and ledger.is_resting(self.run)
        if seen.in_flight:
            self._quiet_since = None
            return False
        now = time.monotonic()
        self._quiet_since = self._quiet_since or now
        return is_done or now - self._quiet_since > QUIET_S

    def _warn_if_nobody_works(self, seen: Progress) -> None:
        """Says once what is missing when nothing was done for a while, and again after the next."""
        if seen.summary.total != self._done:
            self._done, self._done_at, self._said_nobody = (
                seen.summary.total,
                time.monotonic(),
                False,
            )
        is_quiet = time.monotonic() - self._done_at > NOBODY_WORKS_S
        if self.brings_workers or self._said_nobody or not is_quiet:
            return
        roles = {about.get("role") for about in self.services.ledger.alive().values()}
        for role in ("coordinator", "worker"):
            if role not in roles:
                self._said_nobody = True
                self.view.note(f"No {role} is alive on this broker: start one with `batchq up`.")
