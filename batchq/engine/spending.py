"""Pays the calls of an item out of its run's budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from batchq.engine.budget import used_up_text
from batchq.errors import BudgetUsedUp
from batchq.outcome import Usage
from batchq.plan import StageSpec
from batchq.planning.estimate import output_tokens
from batchq.planning.pricing import cost, estimate_tokens
from batchq.ports import Budgets, ChatRequest

# Calls in flight end soon. The last waits are long enough for the runner's sleep to look whether
# the run still goes on.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 1.5


@dataclass(frozen=True, slots=True)
class Purse:
    """What one item's calls are paid from; `owner` is the process that makes them."""

    run: str
    owner: str
    budgets: Budgets

    def hold(self, lease: str, need: Usage, sleep: Callable[[float], None]) -> None:
        """Holds what a call needs, waiting for those in flight where only they are in its way.

        Raises BudgetUsedUp if it cannot fit any more.
        """
        wait_s = FIRST_WAIT_S
        while True:
            allowance = self.budgets.reserve(self.run, lease, self.owner, need)
            if allowance.verdict == "granted":
                return
            if allowance.verdict == "used up" and allowance.use is not None:
                fails = allowance.use.budget.on_exceeded == "fail"
                raise BudgetUsedUp(used_up_text(allowance), ends_run=fails)
            sleep(wait_s)
            wait_s = min(LONGEST_WAIT_S, 2 * wait_s)

    def settle(self, lease: str, need: Usage, used: Usage) -> None:
        """Pays what a call used; what nobody reported is taken to be what it held."""
        self.budgets.settle(self.run, lease, need if used.unpriced_calls else used)


def estimate_call(request: ChatRequest, stage: StageSpec) -> Usage:
    """What a call may use: the prompt by its length, and the longest answer that is allowed.

    Without `max_tokens` the answer is guessed by its schema.
    """
    text = request.system + "".join(message.content for message in request.messages)
    sent = estimate_tokens(text)
    if request.schema is not None:
        sent += estimate_tokens(json.dumps(request.schema))
    most = request.options.get("max_tokens")
    answer = most if isinstance(most, int) and most > 0 else output_tokens(stage)
    return cost(Usage(1, sent, answer), request.provider.prices)
