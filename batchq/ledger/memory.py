"""The worker's side of the ledger in one process: for tests, and to try a step without Redis."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection
from dataclasses import dataclass, field

from batchq.outcome import Json, Outcome, Summary, Usage
from batchq.plan import Budget
from batchq.ports import LATER, Allowance, BudgetUse, Claim, ClaimResult, ItemRef, Lease


@dataclass
class MemoryLedger:
    """Implements ports.WorkerLedger. Every batch is open; `alive` are the owners that live."""

    alive: Collection[str] = ()
    running: bool = True
    has_budget: bool = False
    outcomes: dict[ItemRef, Outcome] = field(default_factory=dict)
    brought: dict[ItemRef, str] = field(default_factory=dict)
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
            kept = dict(self._stages.get(ref, {}))
            return ClaimResult(Claim.RUN, kept, starts, self.has_budget, self.brought.get(ref, ""))

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

    def release(self, ref: ItemRef, *, starts: int = 0, until: float = 0.0) -> None:
        """See ports.WorkerLedger."""
        with self._lock:
            self._leases.pop(ref, None)
            if until:
                self._leases[ref] = Lease(LATER, starts)

    def is_running(self, run: str) -> bool:  # noqa: ARG002 (one run is all there is here)
        """See ports.WorkerLedger."""
        return self.running


@dataclass
class MemoryBudgets:
    """Implements ports.Budgets for one run; `alive` are the owners that live, as above.

    What budget_reserve.lua and budget_settle.lua do, in the same order.
    """

    budget: Budget
    alive: Collection[str] = ()
    spent: Usage = Usage()
    _held: dict[str, tuple[Usage, Usage, str]] = field(default_factory=dict)  # need, estimate
    _estimated: Usage = Usage()
    _settled: Usage = Usage()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, run: str, lease: str, owner: str, need: Usage) -> Allowance:  # noqa: ARG002
        """See ports.Budgets."""
        with self._lock:
            estimate, need = need, self._grown(need)
            self._held.pop(lease, None)
            verdict = self._judge(need)
            if verdict.verdict == "wait":
                for key, (_, _, holder) in self._held.items():
                    if holder and holder not in self.alive:
                        self._held[key] = (Usage(), Usage(), "")
                verdict = self._judge(need)
            if verdict.verdict == "granted":
                self._held[lease] = (need, estimate, owner)
            return verdict

    def settle(self, run: str, lease: str, used: Usage) -> None:  # noqa: ARG002
        """See ports.Budgets."""
        with self._lock:
            if lease not in self._held:
                return
            _, estimate, _ = self._held.pop(lease)
            self.spent += used
            if used.tokens:
                self._estimated += estimate
                self._settled += used

    def use(self) -> BudgetUse:
        """The budget, and what is used of it."""
        held = sum((need for need, _, _ in self._held.values()), Usage())
        spent = self.spent
        return BudgetUse(
            self.budget, "", spent.cost_nusd, spent.tokens, held.cost_nusd, held.tokens
        )

    def _grown(self, need: Usage) -> Usage:
        """What calls used more than was estimated, the next ones will, too."""
        used, told = self._settled, self._estimated
        nusd = max(1, used.cost_nusd / told.cost_nusd) if told.cost_nusd else 1
        tokens = max(1, used.tokens / told.tokens) if told.tokens else 1
        return Usage(
            need.calls, math.ceil(need.tokens * tokens), 0, math.ceil(need.cost_nusd * nusd)
        )

    def _judge(self, need: Usage) -> Allowance:
        use, budget = self.use(), self.budget
        sides = [
            (budget.nusd, use.spent_nusd, use.held_nusd, need.cost_nusd),
            (budget.tokens, use.spent_tokens, use.held_tokens, need.tokens),
        ]
        bounded = [(limit - spent, held, amount) for limit, spent, held, amount in sides
                   if limit is not None]  # fmt: skip
        if any(amount > free for free, _, amount in bounded):
            return Allowance("used up", use, need)
        if any(amount > free - held for free, held, amount in bounded):
            return Allowance("wait", use, need)
        return Allowance("granted")
