"""Tells which items of a plan would be answered from the cache: nothing is asked, nothing paid."""

from __future__ import annotations

import time
from collections.abc import Callable

from batchq.answers import cache_key
from batchq.conditions import evaluate
from batchq.errors import OutputError, TaskError
from batchq.outcome import Json
from batchq.parsing import parse_answer, parse_loose
from batchq.plan import StageSpec, StepPlan
from batchq.ports import Cache, ChatRequest
from batchq.stages import Conversation, merged


def answers_in(
    cache: Cache, clock: Callable[[], float] = time.time
) -> Callable[[StepPlan, Json], bool]:
    """Makes the function that says whether all answers for an item of a step are in a cache."""

    def is_answered(step: StepPlan, data: Json) -> bool:
        known = data
        for stage in step.spec.stages:
            try:
                if stage.when and not evaluate(stage.when, known):
                    continue
                value = _answer(stage, known, cache, clock())
            except (TaskError, OutputError):
                return False
            if value is None:
                return False
            known = merged(known, stage.name, value[0])
        return True

    return is_answered


def has_cache(step: StepPlan) -> bool:
    """Whether answers of a step are kept at all."""
    return any(
        stage.provider is not None
        and stage.provider.cache is not None
        and stage.provider.cache.max_age_s != 0
        for stage in step.spec.stages
    )


def _answer(stage: StageSpec, data: Json, cache: Cache, now: float) -> tuple[Json] | None:
    """The value that a stage would take from the cache; None if it would have to ask."""
    provider = stage.provider
    if provider is None or provider.cache is None or provider.cache.max_age_s == 0:
        return None
    talk = Conversation.begin(stage, data)
    request = ChatRequest(provider, talk.messages, talk.system, stage.options, stage.output_schema)
    kept = cache.get(cache_key(request))
    max_age_s = provider.cache.max_age_s
    if kept is None or (max_age_s is not None and now - kept.stored_at >= max_age_s):
        return None
    if stage.output_schema is None:
        return (parse_loose(kept.text),)
    return (parse_answer(kept.text, stage.output_schema).value,)
