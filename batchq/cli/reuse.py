"""Shows what a submit reuses and what it runs, item by item and in sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from batchq.cli.output import count, duration, money, put, put_json, table

if TYPE_CHECKING:
    from batchq.outcome import Usage
    from batchq.ports import RunInfo
    from batchq.runs.learned import Lesson
    from batchq.runs.reuse import Review, StepReview


def reuse_lines(review: Review) -> list[str]:
    """How many items are reused and run, and why; nothing where there is nothing to compare."""
    from batchq.actions.submission import summary_lines

    has_reused = any(one.is_reused for step in review.steps for one in step.decisions)
    if review.base is None and not has_reused:
        return []
    return [f"reuse  {line}" for line in summary_lines(review)]


def lesson_lines(base: str, lessons: list[Lesson]) -> list[str]:
    """What the version before took, and what that says of this one."""
    if not lessons:
        return []
    lines = [f"seen in {base}"]
    for one in lessons:
        seen = one.seen
        tokens = f"{seen.input_tokens:,.0f} + {seen.output_tokens:,.0f} tokens"
        lines.append(
            f"  {one.step.spec.name}: {count(seen.items, 'item')}, {tokens}, "
            f"{duration(seen.duration_s)} and {seen.attempts:.2f} tries each, "
            f"{seen.failed / seen.items:.1%} failed"
        )
        if one.cost is not None and one.cost.expected:
            low, high = money(one.cost.low), money(one.cost.high)
            lines.append(f"    at that about {money(one.cost.expected)}, {low} to {high}")
        was, planned = one.was, one.planned
        if was.calls:
            lines.append(f"    planned then {_usage(planned)}; it was {_usage(was)}")
    return lines


def _usage(usage: Usage) -> str:
    return (
        f"{usage.input_tokens:,} + {usage.output_tokens:,} tokens, "
        f"{money(usage.cost_usd, usage.unpriced_calls)}"
    )


def lesson_json(lessons: list[Lesson]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "step": one.step.spec.name,
            "items": one.seen.items,
            "failed": one.seen.failed,
            "per_item": {
                "attempts": one.seen.attempts,
                "duration_s": one.seen.duration_s,
                "input_tokens": one.seen.input_tokens,
                "output_tokens": one.seen.output_tokens,
            },
            "cost_usd": None if one.cost is None else asdict(one.cost),
            "planned": _usage_json(one.planned),
            "was": _usage_json(one.was),
        }
        for one in lessons
    ]


def _usage_json(usage: Usage) -> dict[str, Any]:
    return {
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.cost_usd,
    }


def reuse_json(review: Review) -> dict[str, Any]:
    """The same for programs."""
    return {
        "base": review.base.name if review.base else None,
        "steps": [_step_json(step) for step in review.steps],
    }


def _step_json(review: StepReview) -> dict[str, Any]:
    reused = sum(one.is_reused for one in review.decisions)
    return {
        "step": review.step.spec.name,
        "items": len(review.decisions) + review.unknown,
        "reused": reused,
        "run": len(review.decisions) - reused,
        "unknown": review.unknown,
        "because": {word.value: number for word, number in review.counts().items()},
        "reasons": dict(Counter(one.reason for one in review.decisions)),
    }


def put_items(review: Review, *, as_json: bool) -> None:
    """Writes one line for each item of each step: whether it is run, and why."""
    if as_json:
        put_json(
            [
                {
                    "step": step.step.spec.name,
                    "item": one.item_id,
                    "index": one.index,
                    "action": "reuse" if one.is_reused else "run",
                    "because": one.because.value,
                    "reason": one.reason,
                }
                for step in review.steps
                for one in step.decisions
            ]
        )
        return
    rows = [
        (step.step.spec.name, one.item_id, "reuse" if one.is_reused else "run", one.reason)
        for step in review.steps
        for one in step.decisions
    ]
    for line in table([("STEP", "ITEM", "", "WHY"), *rows]):
        put(line)
    for step in review.steps:
        if step.unknown:
            name = step.step.spec.name
            put(f"{name}: about {step.unknown:,} items, known when the step before it is done")


def put_rest(info: RunInfo, *, as_json: bool) -> None:
    """Writes what a resume would run of each step, and why."""
    from batchq.runs.life import open_folder

    folder = open_folder(info.folder)
    done = folder.done_steps()
    steps = []
    for step in info.plan.steps:
        number = step.spec.number
        total = folder.item_count(number)
        summary = folder.summary(number)
        ended = summary.ok + summary.failed
        steps.append(
            {
                "step": step.spec.name,
                "state": "done" if number in done else "waits" if total is None else "begun",
                "items": total,
                "ended": ended,
                "failed": summary.failed,
                "run": 0 if number in done else None if total is None else total - ended,
            }
        )
    name = f"{info.pipeline}@{info.version}"
    if as_json:
        put_json({"run": name, "steps": steps})
        return
    put(f"would go on with {name}")
    for one in steps:
        put(f"  {one['step']}: {_rest(one)}")


def _rest(step: dict[str, Any]) -> str:
    if step["state"] == "done":
        return f"done, {step['ended']:,} items"
    if step["state"] == "waits":
        return "all of it: its input is not there yet"
    failed = f"; {step['failed']:,} failed, which `batchq retry` runs" if step["failed"] else ""
    return f"{step['run']:,} of {step['items']:,} items, which have not ended{failed}"
