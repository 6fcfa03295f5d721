"""The worker's side of the ledger in one process: for tests, and to try a step without Redis."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field

from batchq.outcome import Json, Outcome, Summary
from batchq.ports import Claim, ClaimResult, ItemRef, Lease


@dataclass
class MemoryLedger:
    """Implements ports.WorkerLedger. Every batch is open; `alive` are the owners that live."""

    alive: Collection[str] = ()
    running: bool = True
    outcomes: dict[ItemRef, Outcome] = field(default_factory=dict)
    summary: Summary = Summary()
    _leases: dict[ItemRef, Lease] = field(default_factory=dict)
    _stages: dict[ItemRef, dict[str, Json]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def claim(self, ref: ItemRef, owner: str) -> ClaimResult:
        """See ports.WorkerLedger."""
        with self._lock:
            if ref in self.outcomes:
                return ClaimResult(Claim.DONE, {}, 0)
            if not self.running:
                return ClaimResult(Claim.STOPPED, {}, 0)
            lease = self._leases.get(ref)
            if lease and lease.owner in self.alive:
                return ClaimResult(Claim.HELD, {}, 0)
            starts = lease.starts + 1 if lease else 1
            self._leases[ref] = Lease(owner, starts)
            return ClaimResult(Claim.RUN, dict(self._stages.get(ref, {})), starts)

    def checkpoint(self, ref: ItemRef, stage: str, value: Json) -> None:
        """See ports.WorkerLedger."""
        with self._lock:
            self._stages.setdefault(ref, {})[stage] = value

    def commit(self, ref: ItemRef, outcome: Outcome) -> bool:
        """See ports.WorkerLedger."""
        with self._lock:
            if ref in self.outcomes:
                return False
            self.outcomes[ref] = outcome
            self.summary += Summary.of(outcome)
            self._leases.pop(ref, None)
            return True

    def release(self, ref: ItemRef) -> None:
        """See ports.WorkerLedger."""
        with self._lock:
            self._leases.pop(ref, None)

    def is_running(self, run: str) -> bool:  # noqa: ARG002 (one run is all there is here)
        """See ports.WorkerLedger."""
        return self.running
