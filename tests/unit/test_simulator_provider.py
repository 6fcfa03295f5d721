from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from batchq.simulator import anthropic_format, openai_format
from batchq.simulator.chat import Call
from batchq.simulator.faults import Fault, decide_fault
from batchq.simulator.options import SimulatorOptions
from batchq.simulator.provider import Format, Served, SimulatedProvider
from batchq.simulator.replies import identify

SCHEMA = {
    "type": "object",
    "properties": {"topic": {"enum": ["io", "text"]}, "confidence": {"type": "number"}},
    "required": ["topic", "confidence"],
}


def provider_of(**options: Any) -> SimulatedProvider:
    return SimulatedProvider(SimulatorOptions(**options), clock=lambda: 0.0)


def ask(provider: SimulatedProvider, prompt: str = "What is io?", **body: Any) -> Served:
    whole = {"model": "m", "messages": [{"role": "user", "content": prompt}], **body}
    return provider.serve(openai_format, {}, json.dumps(whole).encode())


def ask_anthropic(provider: SimulatedProvider, prompt: str = "What is io?", **body: Any) -> Served:
    messages = [{"role": "user", "content": prompt}]
    whole = {"model": "m", "max_tokens": 500, "messages": messages, **body}
    headers = {"anthropic-version": "2023-06-01"}
    return provider.serve(anthropic_format, headers, json.dumps(whole).encode())


def body_of(served: Served) -> Mapping[str, Any]:
    assert served.response is not None
    return served.response.body


def status_of(served: Served) -> int:
    assert served.response is not None
    return served.response.status


def test_a_repeat_counts_as_duplicate_only_after_a_good_answer_was_sent() -> None:
    provider = provider_of()

    first = ask(provider)
    ask(provider).end(was_sent=False)
    first.end(was_sent=True)
    ask(provider).end(was_sent=True)

    stats = provider.stats()
    assert (stats["accepted"], stats["prompts"]) == (3, 1)
    assert (stats["repeats_in_flight"], stats["duplicates"]) == (1, 1)
    assert (stats["in_flight"], stats["peak_in_flight"]) == (0, 2)


def test_a_repeat_after_a_bad_answer_is_no_duplicate() -> None:
    provider = provider_of(garbage_rate=1.0)
    ask(provider).end(was_sent=True)

    provider.configure(SimulatorOptions())
    ask(provider).end(was_sent=True)

    stats = provider.stats()
    assert (stats["duplicates"], stats["repeats_after_fault"]) == (0, 1)
    assert stats["faults"] == {"garbage": 1}


def test_a_call_that_the_limits_refuse_is_no_attempt() -> None:
    options = {"rpm": 60.0, "server_error_rate": 0.5, "seed": 1}
    now = [0.0]
    limited = SimulatedProvider(SimulatorOptions(**options, burst_s=1.0), clock=lambda: now[0])
    free = provider_of(server_error_rate=0.5, seed=1)

    statuses = []
    for _ in range(20):
        assert status_of(ask(limited, "other")) in (200, 429, 500)
        now[0] += 1.0
        refused_or_not = [ask(limited), ask(limited)]
        statuses.append(status_of(refused_or_not[0]))
        assert status_of(refused_or_not[1]) == 429
        now[0] += 1.0

    assert statuses == [status_of(ask(free)) for _ in range(20)]


def test_the_same_prompt_gets_the_same_answer_in_either_format() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    config = {"format": {"type": "json_schema", "schema": SCHEMA}}

    one = body_of(ask(provider_of(), response_format=schema))
    other = body_of(ask_anthropic(provider_of(), output_config=config))

    assert one["choices"][0]["message"]["content"] == other["content"][0]["text"]


def test_usage_is_a_quarter_of_the_characters() -> None:
    body = body_of(ask(provider_of(), "x" * 401))

    assert body["usage"]["prompt_tokens"] == 101
    answer = body["choices"][0]["message"]["content"]
    assert body["usage"]["completion_tokens"] == -(-len(answer) // 4)


def test_max_tokens_cuts_an_answer_off() -> None:
    openai = body_of(ask(provider_of(), max_tokens=3))
    anthropic = body_of(ask_anthropic(provider_of(), max_tokens=3))

    assert openai["choices"][0]["finish_reason"] == "length"
    assert openai["usage"]["completion_tokens"] == 3
    assert anthropic["stop_reason"] == "max_tokens"


def test_answers_differ_by_seed_and_by_nothing_else() -> None:
    texts = [body_of(ask(provider_of(seed=seed)))["choices"] for seed in (1, 1, 2)]

    assert texts[0] == texts[1] != texts[2]


def test_garbage_is_no_json_whatever_way_it_is_spoilt() -> None:
    provider = provider_of(garbage_rate=1.0)

    for number in range(30):
        served = ask(provider, f"item {number}", response_format={"type": "json_object"})
        text = body_of(served)["choices"][0]["message"]["content"]
        with pytest.raises(ValueError, match=r"."):
            json.loads(text)


def test_a_reset_forgets_attempts_and_counts() -> None:
    provider = provider_of(server_error_rate=0.5)
    before = [status_of(ask(provider)) for _ in range(10)]

    provider.reset()

    assert [status_of(ask(provider)) for _ in range(10)] == before
    assert provider.stats()["accepted"] == 10


def test_a_call_from_before_a_reset_does_not_disturb_the_counts_after_it() -> None:
    provider = provider_of()
    old = ask(provider)

    provider.reset()
    old.end(was_sent=True)

    stats = provider.stats()
    assert (stats["accepted"], stats["in_flight"], stats["statuses"]) == (0, 0, {})


@pytest.mark.parametrize("form", [openai_format, anthropic_format])
@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[1]", b"{}", b'{"messages": "hi", "model": "m"}', b"\xff", b"[" * 100_000],
)
def test_a_body_that_is_no_request_is_refused_in_the_formats_own_words(
    form: Format, raw: bytes
) -> None:
    served = provider_of().serve(form, {"anthropic-version": "2023-06-01"}, raw)

    assert status_of(served) == 400
    assert body_of(served)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"stream": True}, "stream"),
        ({"n": 2}, "one choice"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "json_schema.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"messages": [7]}, "messages"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "thing"}},
                }
            },
            "Invalid schema",
        ),
    ],
)
def test_what_is_not_done_here_is_refused_by_its_name(body: dict[str, Any], word: str) -> None:
    served = ask(provider_of(), **body)

    assert status_of(served) == 400
    assert word in body_of(served)["error"]["message"]


def test_a_fault_is_the_one_that_was_decided_for_prompt_and_attempt() -> None:
    options = SimulatorOptions(overloaded_rate=0.3, server_error_rate=0.3, seed=9)
    provider = SimulatedProvider(options, clock=lambda: 0.0)
    statuses = {Fault.NONE: 200, Fault.OVERLOADED: 503, Fault.SERVER_ERROR: 500}

    for attempt in (1, 2, 3):
        for number in range(20):
            call = Call(model="m", prompt=f"item {number}")
            decided = decide_fault(options, identify(call), attempt)
            assert status_of(ask(provider, call.prompt)) == statuses[decided]


def test_an_unending_retry_is_told_apart_from_one_that_helps() -> None:
    provider = provider_of(tpm=10.0)

    served = ask(provider, "x" * 400)

    assert served.response is not None
    assert served.response.status == 429
    assert "retry-after" not in served.response.headers
    assert "Request too large" in served.response.body["error"]["message"]


@pytest.mark.parametrize(
    ("tells", "told"),
    [("all", {"limit", "retry"}), ("retry", {"retry"}), ("nothing", set())],
)
def test_headers_tell_of_limits_as_much_as_they_are_to(tells: str, told: set[str]) -> None:
    provider = provider_of(rpm=60, burst_s=1, tells=tells)
    ask(provider)

    refused = ask(provider).response

    assert refused is not None
    assert refused.status == 429
    names = {name for name in refused.headers if name.startswith(("x-ratelimit", "retry-after"))}
    assert {"limit" if name.startswith("x-") else "retry" for name in names} == told


def test_the_log_of_calls_tells_which_were_let_through_and_when() -> None:
    now = [0.0]
    options = SimulatorOptions(rpm=60, burst_s=2)
    provider = SimulatedProvider(options, clock=lambda: now[0])

    ask(provider)
    now[0] = 0.25
    ask(provider, model="other")
    ask(provider)

    log = provider.calls()
    assert log["now"] == 0.25
    assert [(call["at"], call["model"], call["in_flight"]) for call in log["calls"]] == [
        (0.0, "m", 1),
        (0.25, "other", 2),
        (0.25, "m", 2),
    ]
    assert [call["refused_by"] for call in log["calls"]] == ["", "", "requests"]
    provider.reset()
    assert provider.calls()["calls"] == []
