"""Plans what bounds a run: its budget and its canary, checked against the steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchq.endpoint import ProviderSpec
from batchq.errors import ManifestError, PlanError
from batchq.manifest.loader import problem_at
from batchq.manifest.models import Manifest
from batchq.plan import Budget, Canary, StepPlan
from batchq.planning.pricing import upload_prices

_NO_PRICE = "no price is known for {model}, so the budget in dollars cannot be held"
_SET_ONE = (
    "set `prices: {input_per_1m: .., output_per_1m: ..}` here, for `mode: batch` and `auto` with "
    "`batch: 0.5`, or a budget of tokens"
)


def plan_budget(manifest: Manifest, steps: Sequence[StepPlan]) -> Budget | None:
    """The budget of a run; raises ManifestError for models that have no price under a usd one."""
    if manifest.budget is None:
        return None
    budget = manifest.budget.planned()
    if budget.nusd is not None:
        places = {one.name: one.model for one in _unpriced(steps)}
        problems = [
            problem_at(manifest, ("providers", name), _NO_PRICE.format(model=model), _SET_ONE)
            for name, model in places.items()
        ]
        if problems:
            raise ManifestError(problems)
    return budget


def plan_canary(manifest: Manifest) -> Canary | None:
    """The canary of a run."""
    one = manifest.canary
    return None if one is None else Canary(one.items, one.max_failures, one.then)


def changed_budget(
    budget: Budget | None, nusd: int | None, tokens: int | None, steps: Sequence[StepPlan]
) -> Budget | None:
    """The budget with other amounts, where they are given; raises PlanError as `plan_budget`."""
    if nusd is None and tokens is None:
        return budget
    changed = (budget or Budget()).with_amounts(nusd, tokens)
    if changed.nusd is not None:
        for provider in _unpriced(steps):
            message = _NO_PRICE.format(model=provider.model)
            raise PlanError(f"provider {provider.name}: {message}: use --max-tokens")
    return changed


def budget_warnings(budget: Budget | None, steps: Sequence[StepPlan]) -> Iterator[str]:
    """What a plan already says about a budget: that its calls are estimated to need more."""
    if budget is None:
        return
    cost_usd = sum(step.cost_usd or 0.0 for step in steps)
    tokens = sum(step.input_tokens + step.output_tokens for step in steps)
    if budget.nusd is not None and cost_usd > budget.nusd / 1e9:
        yield f"the run is estimated at ${cost_usd:.2f}, its budget is ${budget.nusd / 1e9:.2f}"
    if budget.tokens is not None and tokens > budget.tokens:
        yield f"the run is estimated at {tokens:,} tokens, its budget is {budget.tokens:,}"


def _unpriced(steps: Sequence[StepPlan]) -> Iterator[ProviderSpec]:
    for step in steps:
        for stage in step.spec.stages:
            if stage.provider is None:
                continue
            prices = stage.provider.prices
            if prices is None or (step.uploads is not None and upload_prices(prices) is None):
                yield stage.provider
