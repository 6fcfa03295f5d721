"""What becomes of an item, of its usage and of the cache when a provider has `cache: true`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from batchq.endpoint import CacheSpec, Limits, Prices, ProviderSpec
from batchq.engine.answers import Answers
from batchq.engine.runner import run_item
from batchq.engine.stages import Tools
from batchq.errors import ProviderError, Refused, ServerFailed, Truncated
from batchq.ledger import MemoryLedger
from batchq.limiter import MemoryLimiter
from batchq.outcome import Outcome, Summary, Usage
from batchq.plan import Item, RetryPolicy, StageSpec, StepSpec
from batchq.ports import ChatReply, ChatRequest, ItemRef, KeptAnswer
from batchq.store import MemoryCache

PROVIDER = ProviderSpec(
    "p", "openai", "http://unused", "m",
    limits=Limits(concurrency=1), prices=Prices(1.0, 2.0), cache=CacheSpec(),
)  # fmt: skip
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
STRICTER = {**SCHEMA, "properties": {"n": {"type": "integer", "maximum": 2}}}
PAID = Usage(1, 10, 5, 20_000)


@dataclass
class World:
    """One cache, provider and limiter over several runs of an item."""

    answers: list[str | ProviderError] = field(default_factory=list)
    requests: list[ChatRequest] = field(default_factory=list)
    cache: MemoryCache = field(default_factory=MemoryCache)
    now: float = 1000.0

    def call(self, request: ChatRequest) -> ChatReply:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, ProviderError):
            raise answer
        return ChatReply(answer, "m-1", Usage(1, 10, 5))

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, *stages: StageSpec, word: str = "Ü") -> Outcome:
        limiter = MemoryLimiter(clock=lambda: self.now)
        answers = Answers(lambda: self.cache, lambda: self.now)
        tools = Tools(limiter, lambda _: self, (), lambda: self.now, self.sleep, answers)
        ledger, ref = MemoryLedger(), ItemRef("r1", 1, 0, 0)
        step = StepSpec(1, "count", stages, retry=RetryPolicy(max_retries=1, jitter=False))
        run_item(ref, Item("i1", 0, {"word": word}), step, ledger, "w1", tools)
        return ledger.outcomes[ref]


def prompt(
    name: str = "", cache: CacheSpec | None = PROVIDER.cache, **changes: object
) -> StageSpec:
    stage = StageSpec(
        name, "prompt", prompt="Count {word}", provider=replace(PROVIDER, cache=cache),
        output_schema=SCHEMA,
    )  # fmt: skip
    return replace(stage, **changes)  # type: ignore[arg-type]


def test_the_same_request_is_paid_once() -> None:
    here = World(['{"n": 3}'])

    first, second = here.run(prompt()), here.run(prompt())

    assert (first.output, first.usage, first.cached) == ({"n": 3}, PAID, False)
    assert (second.output, second.usage, second.cached) == ({"n": 3}, Usage(), True)
    assert second.attempts[0].model == "m-1"
    assert second.prompts == first.prompts
    assert len(here.requests) == 1
    assert Summary.of(second) == Summary(ok=1, cached=1)


def test_a_provider_without_a_cache_is_asked_each_time() -> None:
    here = World(['{"n": 3}', '{"n": 4}'])

    outputs = [here.run(prompt(cache=None)).output for _ in range(2)]

    assert outputs == [{"n": 3}, {"n": 4}]


def test_another_prompt_is_another_request() -> None:
    here = World(['{"n": 3}', '{"n": 4}'])

    here.run(prompt())

    assert here.run(prompt(), word="U").output == {"n": 4}


def test_no_cache_asks_anew_and_the_new_answer_takes_the_place_of_the_old_one() -> None:
    here = World(['{"n": 3}', '{"n": 4}'])

    here.run(prompt())
    anew = here.run(prompt(cache=CacheSpec(max_age_s=0)))
    after = here.run(prompt())

    assert (anew.output, anew.cached) == ({"n": 4}, False)
    assert (after.output, after.cached) == ({"n": 4}, True)


def test_an_answer_that_is_too_old_is_asked_for_again() -> None:
    here = World(['{"n": 3}', '{"n": 4}'])
    here.run(prompt())

    here.now += 61

    assert here.run(prompt(cache=CacheSpec(max_age_s=60))).output == {"n": 4}


def test_an_answer_that_had_to_be_asked_for_twice_costs_nothing_the_next_time() -> None:
    here = World(["no json", '{"n": 3}'])

    first, second = here.run(prompt()), here.run(prompt())

    assert first.usage.calls == 2
    assert (second.output, second.cached) == ({"n": 3}, True)


@pytest.mark.parametrize(
    "bad",
    [
        "no json",
        '{"n": "three"}',
        Refused("no", raw="no", tokens=(10, 5)),
        Truncated("cut off", raw='{"n": 3}', tokens=(10, 5)),
        ServerFailed("boom"),
    ],
    ids=["not json", "schema", "refused", "truncated", "server"],
)
def test_what_could_not_be_used_is_not_kept(bad: str | ProviderError) -> None:
    here = World([bad, bad])

    failed = here.run(prompt())
    here.answers = ['{"n": 3}']
    second = here.run(prompt())

    assert not failed.is_ok
    assert (second.output, second.cached) == ({"n": 3}, False)


def test_a_kept_answer_that_does_not_fit_is_ignored_and_replaced() -> None:
    here = World(['{"n": 3}', '{"n": 2}'])
    here.run(prompt())
    (key,) = here.cache._texts
    here.cache.put(key, KeptAnswer('{"n": "bad"}', "m-1", Usage(), 1.0))

    second, third = here.run(prompt()), here.run(prompt())

    assert (second.output, second.cached, second.usage) == ({"n": 2}, False, PAID)
    assert (third.output, third.cached) == ({"n": 2}, True)


def test_another_schema_is_another_request() -> None:
    here = World(['{"n": 3}', '{"n": 1}'])

    here.run(prompt())

    assert here.run(prompt(output_schema=STRICTER)).output == {"n": 1}


def test_each_stage_of_an_item_takes_its_own_answer() -> None:
    here = World(['{"n": 3}', '{"n": 4}', '{"n": 5}'])
    stages = prompt("first"), prompt("second", prompt="{n}")

    here.run(*stages)
    again = here.run(*stages)
    mixed = here.run(stages[0], prompt("second", prompt="now {n}"))

    assert again.cached
    assert again.output["second"] == {"n": 4}
    assert [attempt.cached for attempt in mixed.attempts] == [True, False]
    assert (mixed.cached, mixed.usage) == (False, PAID)


def test_a_text_without_a_schema_is_kept_as_well() -> None:
    here = World(["Three ü"])

    here.run(prompt(output_schema=None))

    assert here.run(prompt(output_schema=None)).output == "Three ü"


def test_a_kept_answer_is_repaired_as_the_paid_one_was() -> None:
    here = World(["{'n': 3,}"])

    first, second = here.run(prompt()), here.run(prompt())

    assert (first.repaired, second.repaired, second.cached) == (True, True, True)
