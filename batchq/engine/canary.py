"""Judges the first items of a run: what they cost, and what the rest will."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchq.outcome import Outcome, Usage
from batchq.plan import Canary, Plan, StepPlan
from batchq.planning.estimate import CALL_S, TASK_S
from batchq.planning.pricing import FREE
from batchq.progress import CanaryReport, Progress
from batchq.text.amounts import count, duration, money

# What a faster or slower call changes in a step's time; rates and delays stay what they are.
_BY_LATENCY = ("workers", "batches in flight", "concurrency")


def canary_items(plan: Plan, total: int) -> int:
    """How many items of the first step run before the others; 0 if there would be no others."""
    if plan.canary is None or plan.canary.items >= total:
        return 0
    return plan.canary.items


def live_text(progress: Progress) -> str:
    """How far the first items are, or what they came to; empty for a run without a canary."""
    if progress.canary_items:
        done = min(progress.canary_items, progress.summary.total)
        return f"canary: {done} of {count(progress.canary_items, 'item')} first"
    if progress.canary is None:
        return ""
    return f"canary {progress.canary.state}: {canary_text(progress.canary)}"


def judge_canary(plan: Plan, outcomes: Sequence[Outcome], total: int) -> CanaryReport:
    """Decides by the outcomes of the first items whether the run goes on; `total` has all items.

    Later steps are taken to cost what the plan says: nobody has seen one of their calls.
    """
    canary, step = plan.canary, plan.steps[0]
    assert canary is not None
    failed = sum(not one.is_ok for one in outcomes)
    latency_s = _latency_s(outcomes)
    rest = _rest(outcomes, total - len(outcomes))
    later = plan.steps[1:]
    cost_usd = _cost_usd(step, outcomes, rest, later)
    rest += sum((Usage(one.calls, one.input_tokens, one.output_tokens) for one in later), Usage())
    return CanaryReport(
        state=_verdict(canary, failed),
        items=len(outcomes),
        failed=failed,
        usage=sum((one.usage for one in outcomes), Usage()),
        latency_s=round(latency_s, 3),
        rest_items=total - len(outcomes),
        rest=rest,
        rest_cost_usd=cost_usd,
        rest_s=round(
            _rest_s(step, latency_s, total - len(outcomes)) + sum(one.duration_s for one in later),
            1,
        ),
    )


def _verdict(canary: Canary, failed: int) -> Any:
    if failed > canary.max_failures:
        return "failing"
    return "passed" if canary.then == "go" else "asking"


def _latency_s(outcomes: Sequence[Outcome]) -> float:
    """How long an item takes on average, without waits for limits."""
    spent = [one.duration_s - one.waited_s for outcome in outcomes for one in outcome.attempts]
    return sum(spent) / max(1, len(outcomes))


def _paid(outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """Those that say what an item costs: answers from the cache say nothing."""
    return [one for one in outcomes if not one.cached] or outcomes


def _rest(outcomes: Sequence[Outcome], items: int) -> Usage:
    paid = _paid(outcomes)
    used = sum((one.usage for one in paid), Usage())
    factor = items / max(1, len(paid))
    if not used.calls:
        return Usage()
    return Usage(
        round(used.calls * factor),
        round(used.input_tokens * factor),
        round(used.output_tokens * factor),
        round(used.cost_nusd * factor),
        round(used.unpriced_calls * factor),
    )


def _cost_usd(
    step: StepPlan, outcomes: Sequence[Outcome], rest: Usage, later: Sequence[StepPlan]
) -> float | None:
    unknown = any(one.usage.unpriced_calls for one in _paid(outcomes))
    costs, share = [one.cost_usd for one in later], _share(step)
    if unknown or share is None or None in costs:
        return None
    return round(rest.cost_usd * share + sum(cost or 0.0 for cost in costs), 9)


def _share(step: StepPlan) -> float | None:
    """What the others cost of what the first ones did, which go online; None if nobody knows."""
    provider = step.spec.stages[0].provider
    if step.spec.mode == "online" or provider is None or provider.prices is None:
        return 1.0
    return 1.0 if provider.prices == FREE else provider.prices.batch


def _rest_s(step: StepPlan, latency_s: float, items: int) -> float:
    guessed_s = sum(CALL_S if one.kind == "prompt" else TASK_S for one in step.spec.stages)
    share = items / max(1, step.items)
    is_by_latency = step.bound_by.endswith(_BY_LATENCY)
    return step.duration_s * share * (latency_s / guessed_s if is_by_latency else 1.0)


def canary_text(report: CanaryReport) -> str:
    """What the first items came to, in one line."""
    words = [count(report.items, "item"), f"{report.failed:,} failed"]
    words += _spent(report.usage, money(report.usage.cost_usd, report.usage.unpriced_calls))
    words.append(f"{duration(report.latency_s)} an item")
    return ", ".join(words)


def rest_text(report: CanaryReport) -> str:
    """What the rest is estimated to take, in one line."""
    cost = "at an unknown price" if report.rest_cost_usd is None else money(report.rest_cost_usd)
    words = [*_spent(report.rest, cost), duration(report.rest_s)]
    return f"{count(report.rest_items, 'item')} left: about {', '.join(words)}"


def _spent(usage: Usage, cost: str) -> list[str]:
    if not usage.calls:
        return []
    return [cost, f"{usage.input_tokens:,} + {usage.output_tokens:,} tokens"]


def canary_reason(report: CanaryReport, canary: Canary, name: str) -> str:
    """Why a run stands still after its first items, and what to do."""
    if report.state == "failing":
        return (
            f"{report.failed} of the first {count(report.items, 'item')} failed, "
            f"{canary.max_failures} may: `batchq failures {name}` says why, `batchq retry {name}` "
            f"runs them again, `batchq approve {name}` goes on all the same"
        )
    return (
        f"canary: {canary_text(report)}; {rest_text(report)}. `batchq approve {name}` goes on, "
        f"`batchq cancel {name}` ends it"
    )


def canary_json(report: CanaryReport) -> Mapping[str, Any]:
    """The report for programs."""
    usage, rest = report.usage, report.rest
    return {
        "state": report.state,
        "items": report.items,
        "failed": report.failed,
        "cost_usd": usage.cost_usd,
        "unpriced_calls": usage.unpriced_calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "latency_s": report.latency_s,
        "rest": {
            "items": report.rest_items,
            "calls": rest.calls,
            "cost_usd": report.rest_cost_usd,
            "input_tokens": rest.input_tokens,
            "output_tokens": rest.output_tokens,
            "duration_s": report.rest_s,
        },
    }
