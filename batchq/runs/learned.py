"""What a version teaches about the next one: tokens, tries, seconds and cost of its items."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from batchq.outcome import Summary, Usage
from batchq.plan import Plan, StepPlan
from batchq.planning.changes import work_changes
from batchq.planning.pricing import cost, upload_prices
from batchq.records import Catalog, StepFigures

LEAST_ITEMS = 5
"""Fewer items than these teach nothing."""

_SURE = 2.0
"""A range is so many standard deviations wide to either side: 19 of 20 runs are within it."""


@dataclass(frozen=True, slots=True)
class Range:
    """What a sum will come to: as expected, and the least and the most that is likely."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a step was seen to take, and what it will take with `items` items of the same kind.

    `planned` and `was` are what was estimated of that version, and what it came to; `cost` is None
    where no price is known.
    """

    step: StepPlan
    seen: StepFigures
    cost: Range | None
    planned: Usage
    was: Usage


def learn(
    plan: Plan, before: Plan, run: str, summaries: Mapping[int, Summary], catalog: Catalog
) -> list[Lesson]:
    """Compares each step with that of a version before that does the same work.

    Args:
        plan: The plan, with the numbers of what it will run.
        before: What the version ran.
        run: Its run id.
        summaries: What its steps came to.
        catalog: What knows its items.
    """
    lessons = []
    named = {step.spec.name: step for step in before.steps}
    for step in plan.steps:
        old = named.get(step.spec.name)
        if old is None or work_changes(old, step) or not step.calls:
            continue
        seen = catalog.figures(run, old.spec.number)
        if seen.items < LEAST_ITEMS:
            continue
        planned = Usage(old.calls, old.input_tokens, old.output_tokens, _nusd(old.cost_usd))
        was = summaries[old.spec.number].usage
        lessons.append(Lesson(step, seen, _cost(step, seen), planned, was))
    return lessons


def _cost(step: StepPlan, seen: StepFigures) -> Range | None:
    """Money for as many items, by the prices of today.

    The items of a run differ from one another, and the mean of those that were seen is itself not
    quite that of all; both widen the range.
    """
    prices = {stage.provider.prices for stage in step.spec.stages if stage.provider is not None}
    price = prices.pop() if len(prices) == 1 else None
    if step.spec.mode != "online":
        price = upload_prices(price)
    if price is None:
        return None

    def usd(input_tokens: float, output_tokens: float) -> float:
        # A million items, so that whole tokens are exact enough.
        tokens = round(input_tokens * 1e6), round(output_tokens * 1e6)
        return (cost(Usage(1, *tokens), price).cost_usd or 0.0) / 1e6

    mean = usd(seen.input_tokens, seen.output_tokens)
    spread = math.hypot(usd(seen.input_spread, 0), usd(0, seen.output_spread))
    unsure = _SURE * spread * math.sqrt(step.items + step.items**2 / seen.items)
    expected = mean * step.items
    return Range(expected, max(0.0, expected - unsure), expected + unsure)


def _nusd(usd: float | None) -> int:
    return 0 if usd is None else round(usd * 1e9)
