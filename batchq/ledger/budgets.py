"""What runs may use and have used, over all hosts, in Redis."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import redis

from batchq.ledger import keys
from batchq.ledger.connection import or_queue_error
from batchq.outcome import Usage
from batchq.plan import Budget
from batchq.ports import Allowance, BudgetUse


class RedisBudgets:
    """Implements ports.Budgets, and keeps budgets for coordinators; safe for threads."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        folder = Path(__file__).parent
        self._open = client.register_script((folder / "budget_open.lua").read_text("utf-8"))
        self._reserve = client.register_script((folder / "budget_reserve.lua").read_text("utf-8"))
        self._settle = client.register_script((folder / "budget_settle.lua").read_text("utf-8"))

    @or_queue_error
    def open(self, run: str, use: BudgetUse, *, is_private: bool = False) -> None:
        """Sets a run's budget; what was spent before stays spent.

        `is_private` says that no process is alive that holds something of it.
        """
        budget = use.budget
        limits: list[str | int] = [
            "" if one is None else one for one in (budget.nusd, budget.tokens)
        ]
        spent = [use.spent_nusd, use.spent_tokens]
        args = [*limits, budget.on_exceeded, *spent, int(is_private), use.name]
        self._open(keys=[keys.budget(run), keys.held(run)], args=args)

    @or_queue_error
    def reserve(self, run: str, lease: str, owner: str, need: Usage) -> Allowance:
        """See ports.Budgets."""
        amounts = [need.cost_nusd, need.tokens]
        args: list[str | int] = [lease, owner, *amounts, keys.ALIVE]
        verdict, nusd, tokens = self._reserve(keys=[keys.budget(run), keys.held(run)], args=args)
        if verdict == "granted":
            return Allowance("granted")
        return Allowance(verdict, self.use(run), Usage(1, int(tokens), 0, int(nusd)))

    @or_queue_error
    def settle(self, run: str, lease: str, used: Usage, *, is_due: bool = False) -> None:
        """See ports.Budgets; what `is_due` counts also if nothing is held for it any more."""
        args: list[str | int] = [lease, used.cost_nusd, used.tokens, int(is_due)]
        self._settle(keys=[keys.budget(run), keys.held(run)], args=args)

    @or_queue_error
    def holds(self, run: str, lease: str) -> bool:
        """Whether something is held for a call."""
        return bool(self.client.hexists(keys.held(run), lease))

    @or_queue_error
    def use(self, run: str) -> BudgetUse | None:
        """What a run may use and has used; None if it has no budget, or is not in this Redis."""
        found = cast("dict[str, str]", self.client.hgetall(keys.budget(run)))
        if not found:
            return None
        nusd, tokens = found.get("limit_nusd"), found.get("limit_tokens")
        is_fatal = found.get("on_exceeded") == "fail"
        budget = Budget(
            nusd=int(nusd) if nusd else None,
            tokens=int(tokens) if tokens else None,
            on_exceeded="fail" if is_fatal else "pause",
        )
        amounts = ("spent_nusd", "spent_tokens", "held_nusd", "held_tokens")
        return BudgetUse(budget, found["name"], *(int(found.get(name, 0)) for name in amounts))
