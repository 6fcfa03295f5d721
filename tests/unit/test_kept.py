"""Which items of a plan the cache would answer, found without a call."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest

from batchq.endpoint import CacheSpec, ProviderSpec
from batchq.engine.answers import cache_key
from batchq.outcome import Json, Usage
from batchq.plan import InputSpec, OutputSpec, Pacing, StageSpec, StepPlan, StepSpec, Tolerance
from batchq.ports import ChatRequest, KeptAnswer, Message
from batchq.runs.kept import answers_in, has_cache
from batchq.store import MemoryCache

PROVIDER = ProviderSpec("p", "openai", "http://unused", "m", cache=CacheSpec())
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ASK = StageSpec("ask", "prompt", prompt="Count {word}", provider=PROVIDER, output_schema=SCHEMA)
TELL = StageSpec("tell", "prompt", prompt="Tell {n}", provider=PROVIDER, when="n > 1")
PLAIN = replace(ASK, name="")


class Counting(MemoryCache):
    """A cache that knows how often it was asked, and can be told answers by their prompts."""

    def __init__(self, **answers: str) -> None:
        super().__init__()
        self.questions: list[int] = []
        for prompt, text in answers.items():
            self.learn(prompt.replace("_", " "), text)

    def learn(self, prompt: str, text: str, stored_at: float = 0.0) -> None:
        schema = SCHEMA if prompt.startswith("Count") else None
        request = ChatRequest(PROVIDER, (Message("user", prompt),), schema=schema)
        self.put(cache_key(request), KeptAnswer(text, "m", Usage(1, 1, 1), stored_at))

    def get_many(self, keys: Collection[str]) -> Mapping[str, KeptAnswer]:
        self.questions.append(len(keys))
        return super().get_many(keys)


def step(*stages: StageSpec) -> StepPlan:
    return StepPlan(
        spec=StepSpec(1, "s", stages), input=InputSpec("x"), output=OutputSpec("s.json"),
        pacing=Pacing(), queue="llm", needs=(), tolerance=Tolerance(), items=1,
        items_are_estimated=False, batches=1, calls=0, input_tokens=0, output_tokens=0,
        cost_usd=None, duration_s=1.0, bound_by="cpu",
    )  # fmt: skip


def items(*words: str) -> list[Json]:
    return [{"word": word} for word in words]


def test_many_items_are_one_question_and_the_same_request_is_asked_for_once() -> None:
    cache = Counting(Count_one='{"n": 1}', Count_two="no JSON")

    found = answers_in(cache)(step(PLAIN), items("one", "two", "three", "one"))

    assert found == [True, False, False, True]  # what does not fit the schema would be asked again
    assert cache.questions == [3]


def test_a_later_stage_is_asked_for_the_items_that_come_to_it() -> None:
    cache = Counting(
        Count_one='{"n": 1}', Count_two='{"n": 2}', Count_three='{"n": 3}', Tell_2="two"
    )

    found = answers_in(cache)(step(ASK, TELL), items("one", "two", "three", "four"))

    assert found == [True, True, False, False]  # nothing is told of one; three is not told yet
    assert cache.questions == [4, 2]


def test_an_item_that_lacks_a_field_is_not_answered_and_keeps_nobody_else() -> None:
    cache = Counting(Count_one='{"n": 1}')

    assert answers_in(cache)(step(PLAIN), [{}, {"word": "one"}]) == [False, True]


@pytest.mark.parametrize(("now", "is_answered"), [(99.0, True), (100.0, False)])
def test_an_answer_that_is_too_old_would_be_asked_for_anew(now: float, is_answered: bool) -> None:
    cache = Counting(Count_one='{"n": 1}')
    stage = replace(PLAIN, provider=replace(PROVIDER, cache=CacheSpec(max_age_s=100)))

    assert answers_in(cache, lambda: now)(step(stage), items("one")) == [is_answered]


@pytest.mark.parametrize(
    "stage",
    [
        replace(PLAIN, provider=replace(PROVIDER, cache=None)),
        replace(PLAIN, provider=replace(PROVIDER, cache=CacheSpec(max_age_s=0))),
        StageSpec("", "task", task="m:f"),
    ],
)
def test_a_stage_whose_answers_are_not_kept_is_never_answered(stage: StageSpec) -> None:
    cache = Counting(Count_one=json.dumps({"n": 1}))

    assert answers_in(cache)(step(stage), items("one")) == [False]
    assert cache.questions == []
    assert not has_cache(step(stage))
