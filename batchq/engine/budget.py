"""Says in people's words how a run stands with its budget."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

from batchq.plan import Budget
from batchq.ports import Allowance, BudgetUse
from batchq.text.amounts import money

_USED_UP = "the budget of "


def is_used_up(reason: str) -> bool:
    """Whether a run stopped at the end of its budget, by the reason that it gives."""
    return reason.startswith(_USED_UP)


def used_up_text(allowance: Allowance) -> str:
    """Says which side of a budget is used up, and by what."""
    use, need = allowance.use, allowance.need
    assert use is not None
    limit, tokens = use.budget.nusd, need.tokens
    if limit is not None and need.cost_nusd > limit - use.spent_nusd:
        amounts = [limit, use.spent_nusd, use.held_nusd, need.cost_nusd]
        of, spent, held, wanted = (_usd(one) for one in amounts)
        is_held = use.held_nusd > 0
    else:
        of = f"{use.budget.tokens or 0:,} tokens"
        spent, held, wanted = (f"{one:,}" for one in (use.spent_tokens, use.held_tokens, tokens))
        is_held = use.held_tokens > 0
    reserved = f", {held} reserved by calls in flight" if is_held else ""
    text = f"{_USED_UP}{of} is used up: {spent} spent{reserved}, the next call needs {wanted}"
    if use.budget.on_exceeded == "fail":
        return text
    return f"{text}; raise it with `batchq resume {use.name} {raised_options(use)}`"


def raised_options(use: BudgetUse) -> str:
    """The options of a resume that give a run half as much again as it had."""
    words = []
    if use.budget.nusd is not None:
        words.append(f"--max-cost {_rounded(Decimal(use.budget.nusd) / 10**9)}")
    if use.budget.tokens is not None:
        words.append(f"--max-tokens {_rounded(Decimal(use.budget.tokens))}")
    return " ".join(words)


def budget_text(use: BudgetUse) -> str:
    """How much of a budget is spent, in a few words."""
    words = []
    if use.budget.nusd is not None:
        words.append(f"{_usd(use.spent_nusd)} of {_usd(use.budget.nusd)} spent")
    if use.budget.tokens is not None:
        words.append(f"{use.spent_tokens:,} of {use.budget.tokens:,} tokens spent")
    if use.held_nusd and use.budget.nusd is not None:
        words.append(f"{_usd(use.held_nusd)} reserved")
    elif use.held_tokens and use.budget.tokens is not None:
        words.append(f"{use.held_tokens:,} reserved")
    return ", ".join(words)


def limits_text(budget: Budget) -> str:
    """What a run may use."""
    dollars = [] if budget.nusd is None else [_usd(budget.nusd)]
    return ", ".join([*dollars, *([f"{budget.tokens:,} tokens"] if budget.tokens else [])])


def _usd(nusd: int) -> str:
    """Dollars; of an amount that is no whole hundredth of a cent, two digits that count."""
    usd = nusd / 1e9
    return f"${usd:.2g}" if 1e-4 < usd < 1e-3 else f"${usd:.6f}" if 0 < usd < 1e-4 else money(usd)


def _rounded(amount: Decimal) -> str:
    """Half as much again, rounded up to two digits that count."""
    wanted = amount * Decimal("1.5")
    step = Decimal(1).scaleb(wanted.adjusted() - 1)
    return f"{(wanted / step).to_integral_value(ROUND_CEILING) * step:f}"
