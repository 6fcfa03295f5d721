"""Estimates what a step will take: calls, tokens, money, time, and what bounds the time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchq.errors import TaskError
from batchq.outcome import Json, Usage
from batchq.plan import Item, Pacing, StageSpec, StepSpec
from batchq.planning.pricing import cost, estimate_tokens
from batchq.text.prompts import render

SAMPLE = 50
"""So many first items are rendered; the rest is taken to be like them."""

CALL_S = 2.0
"""How long a call to a model is taken to last; nobody knows it before the first."""
TASK_S = 0.1
"""How long a function or a program is taken to last."""
FREE_TEXT_TOKENS = 300
"""How long an answer without a schema and without `max_tokens` is taken to be."""
CALLS_AT_ONCE = 25
"""How many calls a worker makes at a time, where nothing in the manifest says."""
MOST_CALLS_AT_ONCE = 200
"""The most threads that a window of batches asks for: beyond, more of them gain nothing here."""
MOST_THREADS = 1_000
"""The most that a limit of a provider asks for, which may be any number."""
TASKS_AT_ONCE = 2

_TOKENS_OF = {"string": 30, "number": 4, "integer": 4, "boolean": 2, "null": 1}
_LIST_LENGTH = 3
_DEPTH = 6


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a step will take. Conditional stages are counted as if they always ran."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    duration_s: float
    bound_by: str


def calls_at_once(spec: StepSpec, pacing: Pacing) -> int:
    """How many calls at a time the manifest wants of a step: a limit, or batches in flight."""
    caps = [
        stage.provider.limits.concurrency
        for stage in spec.stages
        if stage.provider is not None and stage.provider.limits.concurrency
    ]
    if not caps and pacing.is_chosen:
        return min(pacing.items_at_once, MOST_CALLS_AT_ONCE)
    return min(max(caps, default=CALLS_AT_ONCE), MOST_THREADS)


def slots_of(spec: StepSpec, pacing: Pacing, queue: str, slots: Mapping[str, int]) -> int:
    """How many items of a step run at a time, by the slots of queues that the caller knows of."""
    if queue in slots:
        return slots[queue]
    if any(stage.kind == "prompt" for stage in spec.stages):
        return calls_at_once(spec, pacing)
    return slots.get("cpu", TASKS_AT_ONCE)


def estimate_step(
    spec: StepSpec, sample: Sequence[Item], items: int, pacing: Pacing, slots: int
) -> Estimate:
    """Estimates a step of `items` items from its first ones."""
    total = Usage()
    costs: list[float | None] = []
    for stage in spec.stages:
        if stage.kind == "prompt":
            used = Usage(
                calls=items,
                input_tokens=round(_input_tokens(stage, sample) * items),
                output_tokens=output_tokens(stage) * items,
            )
            total += used
            prices = stage.provider.prices if stage.provider else None
            costs.append(None if prices is None else cost(used, prices).cost_usd)
    known = [each for each in costs if each is not None]
    duration_s, bound_by = _duration(spec, total, items, pacing, slots)
    return Estimate(
        calls=total.calls,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        cost_usd=sum(known) if len(known) == len(costs) else None,
        duration_s=round(duration_s, 1),
        bound_by=bound_by,
    )


def _input_tokens(stage: StageSpec, sample: Sequence[Item]) -> float:
    """The mean prompt; one that needs earlier stages is its template and the item's own length."""
    schema = estimate_tokens(json.dumps(stage.output_schema)) if stage.output_schema else 0
    sizes = [_rendered_tokens(stage, item.data) for item in sample]
    if not sizes:
        sizes = [estimate_tokens(stage.prompt + stage.system)]
    return sum(sizes) / len(sizes) + schema


def _rendered_tokens(stage: StageSpec, data: Json) -> int:
    try:
        text = render(stage.prompt, data, is_jinja=stage.prompt_is_jinja)
        text += render(stage.system, data, is_jinja=stage.system_is_jinja)
    except TaskError:
        text = stage.prompt + stage.system + json.dumps(data, ensure_ascii=False)
    return estimate_tokens(text)


def output_tokens(stage: StageSpec) -> int:
    """The length of one answer: by the size of its schema, never over `max_tokens`."""
    most = stage.options.get("max_tokens")
    most = most if isinstance(most, int) and not isinstance(most, bool) and most > 0 else None
    if stage.output_schema is not None:
        guess = _schema_tokens(stage.output_schema, 0)
    else:
        guess = most or FREE_TEXT_TOKENS
    return min(guess, most) if most else guess


def _schema_tokens(schema: Any, depth: int) -> int:
    if not isinstance(schema, Mapping) or depth > _DEPTH:
        return _TOKENS_OF["string"]
    if "enum" in schema or "const" in schema:
        return 5
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        return 2 + sum(
            estimate_tokens(str(name)) + 3 + _schema_tokens(part, depth + 1)
            for name, part in properties.items()
        )
    if kind == "array":
        length = schema.get("minItems", _LIST_LENGTH)
        return 2 + int(length) * _schema_tokens(schema.get("items"), depth + 1)
    return _TOKENS_OF.get(str(kind), _TOKENS_OF["string"])


def _duration(
    spec: StepSpec, used: Usage, items: int, pacing: Pacing, slots: int
) -> tuple[float, str]:
    """The longest of the lower bounds, and its name."""
    work_s = items * sum(CALL_S if stage.kind == "prompt" else TASK_S for stage in spec.stages)
    batches = -(-items // pacing.batch_size)
    longest_s = work_s / items if items else 0.0
    bounds = {
        "batches in flight": work_s / max(1, pacing.batch_size * pacing.concurrent_batches),
        "batch_delay": max(0, batches - 1) * pacing.batch_delay_s + longest_s,
    }
    per_call = 1 / max(1, used.calls)
    for stage in spec.stages:
        if stage.provider is None:
            continue
        limits = stage.provider.limits
        stages = sum(
            other.provider is not None and other.provider.name == stage.provider.name
            for other in spec.stages
        )
        calls = items * stages
        tokens = used.tokens * calls * per_call
        for rate in limits.rates:
            amount = calls if rate.unit == "requests" else tokens
            bounds[f"{stage.provider.name} {rate.name}"] = amount / rate.amount * rate.period_s
        if limits.concurrency:
            bounds[f"{stage.provider.name} concurrency"] = calls * CALL_S / limits.concurrency
    # The last, as workers are as many as one of the others wants.
    bounds["workers"] = work_s / max(1, min(slots, items))
    if pacing.batch_delay_s == 0:
        del bounds["batch_delay"]
    name = max(bounds, key=lambda key: bounds[key])
    return bounds[name], name
