"""Tells which items of a plan would be answered from the cache: nothing is asked, nothing paid."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from batchq.engine.answers import cache_key
from batchq.engine.stages import Conversation, merged
from batchq.errors import OutputError, TaskError
from batchq.outcome import Json
from batchq.plan import StageSpec, StepPlan
from batchq.ports import Cache, ChatRequest, KeptAnswer
from batchq.text.conditions import evaluate
from batchq.text.parsing import parse_answer, parse_loose


def answers_in(
    cache: Cache, clock: Callable[[], float] = time.time
) -> Callable[[StepPlan, Sequence[Json]], list[bool]]:
    """Makes the function that says of items of a step whether all their answers are in a cache.

    It asks the cache once a stage, for all items together.
    """

    def are_answered(step: StepPlan, items: Sequence[Json]) -> list[bool]:
        known = dict(enumerate(items))
        for stage in step.spec.stages:
            known = _after(stage, known, cache, clock())
        return [place in known for place in range(len(items))]

    return are_answered


def has_cache(step: StepPlan) -> bool:
    """Whether answers of a step are kept at all."""
    return any(
        stage.provider is not None
        and stage.provider.cache is not None
        and stage.provider.cache.max_age_s != 0
        for stage in step.spec.stages
    )


def _after(
    stage: StageSpec, known: Mapping[int, Json], cache: Cache, now: float
) -> dict[int, Json]:
    """What is known of items after a stage; without those for which it would have to ask."""
    keys: dict[int, str] = {}
    after: dict[int, Json] = {}
    for place, data in known.items():
        with suppress(TaskError):
            if stage.when and not evaluate(stage.when, data):
                after[place] = data
            elif key := _key(stage, data):
                keys[place] = key
    found = cache.get_many({*keys.values()}) if keys else {}
    for place, key in keys.items():
        answer = found.get(key)
        if answer is not None and _is_fresh(stage, answer, now):
            with suppress(OutputError):
                after[place] = merged(known[place], stage.name, _value(stage, answer.text))
    return after


def _key(stage: StageSpec, data: Json) -> str:
    """The name of what a stage would ask for an item; "" if no answer of it is kept."""
    provider = stage.provider
    if provider is None or provider.cache is None or provider.cache.max_age_s == 0:
        return ""
    talk = Conversation.begin(stage, data)
    return cache_key(
        ChatRequest(provider, talk.messages, talk.system, stage.options, stage.output_schema)
    )


def _is_fresh(stage: StageSpec, answer: KeptAnswer, now: float) -> bool:
    assert stage.provider is not None
    assert stage.provider.cache is not None  # else there would be no key
    max_age_s = stage.provider.cache.max_age_s
    return max_age_s is None or now - answer.stored_at < max_age_s


def _value(stage: StageSpec, text: str) -> Json:
    if stage.output_schema is None:
        return parse_loose(text)
    return parse_answer(text, stage.output_schema).value
