from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.endpoint import CacheSpec, Limits, Prices, ProviderSpec
from batchq.engine.answers import Answers, cache_key, decode_answer, encode_answer, key_parts
from batchq.errors import StoreError
from batchq.outcome import Usage
from batchq.ports import ChatRequest, KeptAnswer, Message
from batchq.store import MemoryCache

PROVIDER = ProviderSpec("p", "openai", "http://host/v1", "m")
REQUEST = ChatRequest(
    PROVIDER,
    (Message("user", "Count Ü"),),
    system="Be short.",
    options={"temperature": 0.5, "logit_bias": {"5": 1, "7": -1}},
    schema={"type": "object", "properties": {"n": {"type": "integer"}}},
)
ANSWER = KeptAnswer('{"n": 3}', "m-1", Usage(1, 10, 5), 1000.0)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def turned(value: Any) -> Any:
    """The same mappings with their keys in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(one) for one in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(), plain), st.dictionaries(st.text(), plain))
def test_the_order_of_keys_changes_no_name(options: dict[str, Any], schema: dict[str, Any]) -> None:
    request = replace(REQUEST, options=options, schema=schema)

    other = replace(REQUEST, options=turned(options), schema=turned(schema))

    assert cache_key(other) == cache_key(request)


DECIDES = {
    "kind": replace(REQUEST, provider=replace(PROVIDER, kind="anthropic")),
    "base_url": replace(REQUEST, provider=replace(PROVIDER, base_url="http://other/v1")),
    "simulator": replace(REQUEST, provider=replace(PROVIDER, simulator={"seed": 1})),
    "model": replace(REQUEST, provider=replace(PROVIDER, model="m-2")),
    "system": replace(REQUEST, system=""),
    "messages": replace(REQUEST, messages=(Message("user", "Count U"),)),
    "options": replace(REQUEST, options={**REQUEST.options, "temperature": 0.6}),
    "schema": replace(REQUEST, schema=None),
}


@pytest.mark.parametrize(("part", "changed"), DECIDES.items(), ids=DECIDES)
def test_whatever_decides_the_answer_changes_the_name_and_can_be_told(
    part: str, changed: ChatRequest
) -> None:
    before, after = key_parts(REQUEST), key_parts(changed)

    assert cache_key(changed) != cache_key(REQUEST)
    assert [name for name in before if before[name] != after[name]] == [part]


def test_every_part_of_a_name_is_known_to_decide() -> None:
    assert {*key_parts(REQUEST)} == {*DECIDES, "format"}


@given(st.text(), st.text(), st.text(), st.text())
def test_text_that_moves_from_one_part_to_another_changes_the_name(
    system: str, prompt: str, other_system: str, other_prompt: str
) -> None:
    one = replace(REQUEST, system=system, messages=(Message("user", prompt),))
    other = replace(REQUEST, system=other_system, messages=(Message("user", other_prompt),))

    is_same = (system, prompt) == (other_system, other_prompt)

    assert (cache_key(one) == cache_key(other)) == is_same


def test_keys_limits_prices_and_timeouts_decide_nothing() -> None:
    provider = replace(
        PROVIDER,
        name="other",
        base_url="http://host/v1/",
        api_key_env="KEY",
        limits=Limits(concurrency=3),
        prices=Prices(1, 2),
        timeout_s=5,
        cache=CacheSpec(60),
    )

    assert cache_key(replace(REQUEST, provider=provider, timeout_s=9)) == cache_key(REQUEST)


def test_the_port_of_a_simulator_of_ours_decides_nothing() -> None:
    planned = replace(PROVIDER, kind="simulator", base_url="", simulator={"seed": 1})
    started = replace(planned, base_url="http://127.0.0.1:4711/v1", is_started=True)

    keys = {cache_key(replace(REQUEST, provider=one)) for one in (planned, started)}

    assert len(keys) == 1


@given(st.text(), st.text(), st.integers(0), st.integers(0), st.floats(0, 1e12))
def test_an_answer_reads_back_as_it_was_written(
    text: str, model: str, read: int, written: int, at: float
) -> None:
    answer = KeptAnswer(text, model, Usage(1, read, written), at)

    assert decode_answer(encode_answer(answer)) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '"x"',
        "{}",
        '{"v": 2}',
        '{"v": 1, "text": "x"}',
        '{"v": 1, "usage": 3}',
    ],
)
def test_what_is_no_answer_of_this_format_is_none(text: str) -> None:
    assert decode_answer(text) is None


@dataclass
class Broken:
    """A cache that is out of reach, and counts how often it is asked."""

    asked: int = 0

    def get(self, key: str) -> KeptAnswer | None:
        self.asked += 1
        raise StoreError("out of reach")

    def put(self, key: str, answer: KeptAnswer) -> None:
        self.get(key)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_is_found_until_it_is_too_old() -> None:
    clock = Clock()
    answers = Answers(MemoryCache, clock)
    answers.keep("k", "text", "m", Usage(1, 2, 3))

    clock.now += 59

    assert answers.find("k", 60) == KeptAnswer("text", "m", Usage(1, 2, 3), 1000.0)
    assert answers.find("k", 59) is None
    assert answers.find("k", None) is not None
    assert answers.find("other", None) is None


def test_a_broken_cache_is_told_once_and_left_alone_for_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, cache = Clock(), Broken()
    answers = Answers(lambda: cache, clock)

    answers.keep("k", "text", "m", Usage())
    assert answers.find("k", None) is None
    asked_at_once = cache.asked
    clock.now += 31
    assert answers.find("k", None) is None

    assert (asked_at_once, cache.asked) == (1, 2)
    assert [record.getMessage() for record in caplog.records] == [
        "answers are neither taken from the cache nor kept: out of reach"
    ]


def test_a_cache_that_cannot_be_opened_is_tried_again_later() -> None:
    clock, opened = Clock(), list[bool]()

    def open_cache() -> MemoryCache:
        opened.append(True)
        if len(opened) == 1:
            raise StoreError("the server is not up yet")
        return MemoryCache()

    answers = Answers(open_cache, clock)
    answers.keep("k", "text", "m", Usage())
    clock.now += 31
    answers.keep("k", "text", "m", Usage())

    assert answers.find("k", None) is not None
    assert len(opened) == 2


@dataclass
class Asking:
    """A thread that takes a turn and holds it until it is let go."""

    answers: Answers
    key: str = "k"
    may_end: threading.Event = field(default_factory=threading.Event)
    waited: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        with self.answers.turn(self.key) as has_waited:
            self.waited.append(has_waited)
            self.may_end.wait(10)


def test_the_same_request_waits_for_the_one_that_is_asked_and_another_one_does_not(
    wait_for: Callable[..., None],
) -> None:
    answers = Answers(MemoryCache)
    first = Asking(answers)
    wait_for(lambda: first.waited, "the first one has its turn")
    same, again, other = Asking(answers), Asking(answers), Asking(answers, "other")
    wait_for(lambda: other.waited, "another request has its turn")
    assert (same.waited, again.waited) == ([], [])

    first.may_end.set()

    wait_for(lambda: same.waited and again.waited, "both go on, without waiting for each other")
    assert (first.waited, same.waited, again.waited, other.waited) == (
        [False], [True], [True], [False],
    )  # fmt: skip
    for asking in (same, again, other):
        asking.may_end.set()
        asking.thread.join(10)
