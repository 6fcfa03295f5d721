"""The simulator as a process, seen through the official clients and through plain sockets."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import anthropic
import openai
import pytest
from jsonschema import validate

DEADLINE_S = 20.0
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "summary": {"type": "string"},
        "topic": {"type": "string", "enum": ["text", "files", "network"]},
        "confidence": {"type": "number"},
    },
    "required": ["summary", "topic", "confidence"],
    "additionalProperties": False,
}
JSON_SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "summary", "schema": SCHEMA}}
OPENAI_TOOL: Any = {"type": "function", "function": {"name": "save", "parameters": SCHEMA}}
ANTHROPIC_TOOL: Any = {"name": "save", "input_schema": SCHEMA}
PROMPT = "Summarise the module that reads files over the network."
Formats = pytest.mark.parametrize("wire", ["openai", "anthropic"])


class Server:
    """A simulator in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.url = process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), "the simulator did not start"
        self.port = int(self.url.rpartition(":")[2])

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=DEADLINE_S) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        request = urllib.request.Request(
            self.url + path, data=json.dumps(body).encode(), headers=headers, method="POST"
        )
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return json.load(answer)

    def openai(self, **options: Any) -> openai.OpenAI:
        options = {"api_key": "sk-test", "max_retries": 0, "timeout": DEADLINE_S, **options}
        return openai.OpenAI(base_url=f"{self.url}/v1", **options)

    def anthropic(self, **options: Any) -> anthropic.Anthropic:
        options = {"api_key": "sk-test", "max_retries": 0, "timeout": DEADLINE_S, **options}
        return anthropic.Anthropic(base_url=self.url, **options)

    def ask(self, wire: str, prompt: str = PROMPT, **options: Any) -> Any:
        """One plain call through the client of a format; gives the client's own answer."""
        messages: Any = [{"role": "user", "content": prompt}]
        if wire == "openai":
            with self.openai(**options) as client:
                return client.chat.completions.create(model="m", messages=messages)
        with self.anthropic(**options) as other:
            return other.messages.create(model="m", max_tokens=500, messages=messages)

    def raw(self, sent: bytes) -> bytes:
        """Sends bytes and reads until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S) as client:
            client.sendall(sent)
            received = b""
            while data := client.recv(65536):
                received += data
            return received


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"
        select.select([], [], [], 0.01)


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:

        def start(*arguments: str, **kwargs: Any) -> Server:
            process = subprocess.Popen(
                [sys.executable, "-m", "batchq.simulator", *arguments],
                stdout=subprocess.PIPE,
                text=True,
                **kwargs,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return Server(process)

        yield start


@pytest.fixture(scope="module")
def shared(launch: Callable[..., Server]) -> Server:
    return launch()


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """The one server of this module, with its options and counts as at first."""
    defaults = shared.post("/control", {})
    shared.post("/reset")
    yield shared
    shared.post("/control", defaults)


def request(path: str, body: bytes, headers: str = "", version: str = "1.1") -> bytes:
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": PROMPT}]}).encode()


def test_the_openai_client_gets_text_and_usage(server: Server) -> None:
    answer = server.ask("openai")

    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content.endswith(".")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens == -(-len(PROMPT) // 4)


def test_the_openai_client_gets_json_of_its_schema_and_the_same_again(server: Server) -> None:
    messages: Any = [{"role": "user", "content": PROMPT}]
    with server.openai() as client:
        answers = [
            client.chat.completions.create(
                model="m", messages=messages, response_format=JSON_SCHEMA
            )
            for _ in range(2)
        ]

    texts = [answer.choices[0].message.content for answer in answers]
    value = json.loads(texts[0] or "")
    validate(value, SCHEMA)
    assert 0 <= value["confidence"] <= 1
    assert texts[0] == texts[1]


def test_the_openai_client_gets_an_object_without_a_schema(server: Server) -> None:
    messages: Any = [{"role": "user", "content": "Answer in JSON."}]
    with server.openai() as client:
        answer = client.chat.completions.create(
            model="m", messages=messages, response_format={"type": "json_object"}
        )

    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_the_openai_client_gets_the_tool_call_that_it_forces(server: Server) -> None:
    messages: Any = [{"role": "user", "content": PROMPT}]
    with server.openai() as client:
        answer = client.chat.completions.create(
            model="m",
            messages=messages,
            tools=[OPENAI_TOOL],
            tool_choice={"type": "function", "function": {"name": "save"}},
        )

    assert answer.choices[0].finish_reason == "tool_calls"
    call: Any = (answer.choices[0].message.tool_calls or [])[0]
    assert call.function.name == "save"
    validate(json.loads(call.function.arguments), SCHEMA)


def test_the_anthropic_client_gets_text_and_usage(server: Server) -> None:
    answer = server.ask("anthropic")

    assert (answer.stop_reason, answer.role) == ("end_turn", "assistant")
    assert answer.content[0].text.endswith(".")
    assert answer.usage.input_tokens == -(-len(PROMPT) // 4)
    assert answer.usage.output_tokens > 0


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "save"}, {"type": "any"}])
def test_the_anthropic_client_gets_the_tool_use_that_it_forces(server: Server, choice: Any) -> None:
    messages: Any = [{"role": "user", "content": PROMPT}]
    with server.anthropic() as client:
        answer = client.messages.create(
            model="m",
            max_tokens=500,
            system="Be brief.",
            messages=messages,
            tools=[ANTHROPIC_TOOL],
            tool_choice=choice,
        )

    assert answer.stop_reason == "tool_use"
    part: Any = answer.content[0]
    assert (part.type, part.name) == ("tool_use", "save")
    validate(part.input, SCHEMA)


def test_the_anthropic_client_gets_json_of_its_output_format(server: Server) -> None:
    messages: Any = [{"role": "user", "content": PROMPT}]
    with server.anthropic() as client:
        answer = client.messages.create(
            model="m",
            max_tokens=500,
            messages=messages,
            output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
        )

    part: Any = answer.content[0]
    validate(json.loads(part.text), SCHEMA)


def test_both_clients_list_the_models(server: Server) -> None:
    server.post("/control", {"models": ["large", "small"]})

    with server.openai() as client, server.anthropic() as other:
        assert [model.id for model in client.models.list()] == ["large", "small"]
        assert [model.id for model in other.models.list()] == ["large", "small"]
        assert client.models.retrieve("small").id == "small"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("none")


@Formats
def test_an_unknown_model_is_not_found(server: Server, wire: str) -> None:
    server.post("/control", {"models": ["large"]})
    errors = {"openai": openai.NotFoundError, "anthropic": anthropic.NotFoundError}

    with pytest.raises(errors[wire], match="m"):
        server.ask(wire)


@Formats
def test_a_bad_key_is_refused_and_not_shown(launch: Callable[..., Server], wire: str) -> None:
    guarded = launch("--api-keys", "good-key,other-key")
    errors = {"openai": openai.AuthenticationError, "anthropic": anthropic.AuthenticationError}

    with pytest.raises(errors[wire], match="Incorrect API key") as caught:
        guarded.ask(wire, api_key="bad-key-1234")

    assert "bad-key-1234" not in str(caught.value)
    assert guarded.ask(wire, api_key="other-key")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        guarded.post("/control", {"api_keys": []})
    assert guarded.post("/control", {"api_keys": []}, Authorization="Bearer good-key")


@Formats
def test_a_server_error_is_one_for_the_client(server: Server, wire: str) -> None:
    server.post("/control", {"server_error_rate": 1})
    errors = {"openai": openai.InternalServerError, "anthropic": anthropic.InternalServerError}

    with pytest.raises(errors[wire]) as caught:
        server.ask(wire)

    assert caught.value.status_code == 500
    assert server.get("/stats")["statuses"] == {"500": 1}


def test_an_overloaded_provider_says_so_in_its_own_way(server: Server) -> None:
    server.post("/control", {"overloaded_rate": 1})

    with pytest.raises(openai.InternalServerError) as one:
        server.ask("openai")
    with pytest.raises(anthropic.InternalServerError) as other:
        server.ask("anthropic")

    assert (one.value.status_code, other.value.status_code) == (503, 529)
    assert "overloaded_error" in str(other.value)


@Formats
def test_a_dropped_connection_is_a_connection_error(server: Server, wire: str) -> None:
    server.post("/control", {"drop_rate": 1})
    errors = {"openai": openai.APIConnectionError, "anthropic": anthropic.APIConnectionError}

    with pytest.raises(errors[wire]):
        server.ask(wire)

    assert server.get("/stats")["faults"] == {"drop": 1}


@Formats
def test_a_hang_lasts_until_the_client_gives_up_and_frees_its_place(
    server: Server, wire: str
) -> None:
    server.post("/control", {"hang_rate": 1, "concurrency": 1})
    errors = {"openai": openai.APITimeoutError, "anthropic": anthropic.APITimeoutError}

    with pytest.raises(errors[wire]):
        server.ask(wire, timeout=0.3)

    wait_until(lambda: server.get("/stats")["in_flight"] == 0)
    assert server.get("/stats")["faults"] == {"hang": 1}


def test_a_hang_that_nobody_gives_up_is_broken_off(server: Server) -> None:
    server.post("/control", {"hang_rate": 1, "hang_s": 0.05})

    with pytest.raises(openai.APIConnectionError) as caught:
        server.ask("openai")

    assert not isinstance(caught.value, openai.APITimeoutError)


def test_garbage_reaches_the_clients_as_an_answer(server: Server) -> None:
    server.post("/control", {"garbage_rate": 1})
    messages: Any = [{"role": "user", "content": PROMPT}]

    with server.openai() as client, server.anthropic() as other:
        one = client.chat.completions.create(
            model="m", messages=messages, response_format=JSON_SCHEMA
        )
        two = other.messages.create(
            model="m",
            max_tokens=500,
            messages=messages,
            tools=[ANTHROPIC_TOOL],
            tool_choice={"type": "tool", "name": "save"},
        )

    with pytest.raises(json.JSONDecodeError):
        json.loads(one.choices[0].message.content or "")
    assert [part.type for part in two.content] == ["text"]


def test_a_refusal_is_told_by_each_format_in_its_own_field(server: Server) -> None:
    server.post("/control", {"refusal_rate": 1})

    one, two = server.ask("openai"), server.ask("anthropic")

    assert (one.choices[0].message.content, bool(one.choices[0].message.refusal)) == (None, True)
    assert (two.stop_reason, two.content) == ("refusal", [])


def test_a_truncated_answer_is_marked_as_such(server: Server) -> None:
    server.post("/control", {"truncation_rate": 1})

    one, two = server.ask("openai"), server.ask("anthropic")

    assert (one.choices[0].finish_reason, two.stop_reason) == ("length", "max_tokens")


@Formats
def test_a_prompt_that_is_too_long_is_a_bad_request(server: Server, wire: str) -> None:
    server.post("/control", {"context_tokens": 5})
    errors = {"openai": openai.BadRequestError, "anthropic": anthropic.BadRequestError}

    with pytest.raises(errors[wire], match="too long"):
        server.ask(wire)


@Formats
def test_streams_are_refused_rather_than_answered_whole(server: Server, wire: str) -> None:
    messages: Any = [{"role": "user", "content": PROMPT}]
    errors = {"openai": openai.BadRequestError, "anthropic": anthropic.BadRequestError}

    with server.openai() as client, server.anthropic() as other:
        calls = {
            "openai": lambda: client.chat.completions.create(
                model="m", messages=messages, stream=True
            ),
            "anthropic": lambda: other.messages.create(
                model="m", max_tokens=5, messages=messages, stream=True
            ),
        }
        with pytest.raises(errors[wire], match="does not stream"):
            calls[wire]()


def _refused_at_last(error: type[Exception], call: Callable[[], object]) -> Any:
    """Calls until the limit refuses; gives the refusal."""
    for _ in range(50):
        try:
            call()
        except error as refusal:
            return refusal
    return pytest.fail("fifty calls were let through")


def test_the_openai_headers_count_down_and_tell_when_to_come_back(server: Server) -> None:
    server.post("/control", {"rpm": 120, "tpm": 60000, "burst_s": 1})
    messages: Any = [{"role": "user", "content": PROMPT}]
    with server.openai() as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=messages)
        first = raw.headers

        caught = _refused_at_last(
            openai.RateLimitError,
            lambda: client.chat.completions.create(model="m", messages=messages),
        )

    refused = caught.response.headers
    assert (first["x-ratelimit-limit-requests"], first["x-ratelimit-limit-tokens"]) == (
        "120",
        "60000",
    )
    assert first["x-ratelimit-remaining-requests"] == "1"
    assert first["x-ratelimit-reset-requests"].endswith("ms")
    assert first["x-request-id"].startswith("req_")
    assert refused["retry-after"] == "1"
    assert 0 < int(refused["retry-after-ms"]) <= 500
    assert refused["x-ratelimit-remaining-requests"] == "0"
    assert server.get("/stats")["refused"] == 1
    calls = server.get("/calls")["calls"]
    assert [call["refused_by"] for call in calls] == [""] * (len(calls) - 1) + ["requests"]


def test_the_anthropic_headers_tell_the_same_in_their_own_words(server: Server) -> None:
    server.post("/control", {"tpm": 600, "burst_s": 10})
    messages: Any = [{"role": "user", "content": PROMPT}]
    with server.anthropic() as client:
        raw = client.messages.with_raw_response.create(model="m", max_tokens=500, messages=messages)

        caught = _refused_at_last(
            anthropic.RateLimitError,
            lambda: client.messages.create(model="m", max_tokens=500, messages=messages),
        )

    assert raw.headers["anthropic-ratelimit-tokens-limit"] == "600"
    assert int(raw.headers["anthropic-ratelimit-tokens-remaining"]) < 100
    assert raw.headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
    assert int(caught.response.headers["retry-after"]) >= 1
    assert "rate_limit_error" in str(caught)


def test_a_client_that_retries_by_itself_gets_through_when_told_when(server: Server) -> None:
    server.post("/control", {"rpm": 600, "burst_s": 0.1})

    answers = [server.ask("openai", f"item {n}", max_retries=5) for n in range(4)]

    assert all(answer.choices[0].message.content for answer in answers)
    assert server.get("/stats")["accepted"] == 4


def test_calls_over_the_concurrency_are_refused_and_the_peak_is_told(server: Server) -> None:
    server.post("/control", {"concurrency": 2, "hang_rate": 1})
    waiting = [
        socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) for _ in range(2)
    ]
    for client in waiting:
        client.sendall(request("/v1/chat/completions", CHAT))
    wait_until(lambda: server.get("/stats")["in_flight"] == 2)

    with pytest.raises(openai.RateLimitError, match="2 calls at once"):
        server.ask("openai")
    for client in waiting:
        client.close()

    wait_until(lambda: server.get("/stats")["in_flight"] == 0)
    assert server.get("/stats")["peak_in_flight"] == 2


def test_latency_is_waited_for_by_each_call_at_once(server: Server) -> None:
    server.post("/control", {"latency_ms": 300})
    started = time.monotonic()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: server.post("/v1/chat/completions", _chat(n)), range(8)))

    assert time.monotonic() - started >= 0.3
    assert server.get("/stats")["peak_in_flight"] == 8


def _chat(number: int) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"item {number}"}]}


def test_the_path_works_without_its_version_too(server: Server) -> None:
    assert server.post("/chat/completions", _chat(1))["object"] == "chat.completion"


def test_two_clients_meet_the_same_faults_in_another_order(server: Server) -> None:
    server.post("/control", {"server_error_rate": 0.3, "seed": 5})

    def statuses(numbers: list[int]) -> dict[int, int]:
        server.post("/reset")
        return {number: _status(server, _chat(number)) for number in numbers}

    forward, backward = statuses(list(range(30))), statuses(list(range(29, -1, -1)))

    assert forward == backward
    assert set(forward.values()) == {200, 500}


def _status(server: Server, body: Any) -> int:
    try:
        server.post("/v1/chat/completions", body)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return 200


def test_stats_tell_duplicates_from_repeats_after_a_bad_answer(server: Server) -> None:
    server.post("/control", {"server_error_rate": 1})
    assert _status(server, _chat(1)) == 500
    server.post("/control", {"server_error_rate": 0})

    for number in (1, 1, 2):
        assert _status(server, _chat(number)) == 200

    stats = server.get("/stats")
    assert (stats["accepted"], stats["prompts"]) == (4, 2)
    assert (stats["duplicates"], stats["repeats_after_fault"]) == (1, 1)
    assert stats["statuses"] == {"200": 3, "500": 1}
    assert stats["output_tokens"] > 0


def test_a_wrong_change_is_refused_whole_with_the_reason(server: Server) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.post("/control", {"rpm": 5, "latency": 3})

    with caught.value as error:
        assert "did you mean latency_ms?" in json.load(error)["error"]
    assert server.post("/control", {})["rpm"] is None


def test_health_needs_no_key(launch: Callable[..., Server]) -> None:
    guarded = launch("--options", '{"api_keys": ["k"]}')

    assert guarded.get("/health") == {"status": "ok"}
    with pytest.raises(urllib.error.HTTPError, match="401"):
        guarded.get("/stats")


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    server.post("/control", {"latency_ms": 20})
    bodies = [json.dumps({**_chat(n), "model": f"m{n}"}).encode() for n in range(5)]
    sent = b"".join(request("/v1/chat/completions", body) for body in bodies[:-1])
    sent += request("/v1/chat/completions", bodies[-1], "Connection: close\r\n")

    received = server.raw(sent)

    places = [received.index(f'"model": "m{n}"'.encode()) for n in range(5)]
    assert places == sorted(places)
    assert received.count(b"HTTP/1.1 200 OK") == 5
    assert server.get("/stats")["peak_in_flight"] == 1


def test_a_body_in_chunks_is_put_together(server: Server) -> None:
    half = len(CHAT) // 2
    chunks = b"".join(
        b"%x;x=1\r\n%s\r\n" % (len(part), part) for part in (CHAT[:half], CHAT[half:])
    )
    head = b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"

    received = server.raw(head + b"Connection: close\r\n\r\n" + chunks + b"0\r\nX-T: 1\r\n\r\n")

    assert received.startswith(b"HTTP/1.1 200 OK")


def test_a_request_that_comes_byte_by_byte_is_understood(server: Server) -> None:
    sent = request("/v1/chat/completions", CHAT, "Connection: close\r\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(len(sent)):
            client.sendall(sent[number : number + 1])

        assert client.recv(20).startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_asks_first_is_told_to_go_on(server: Server) -> None:
    head, _, body = request(
        "/v1/chat/completions", CHAT, "Expect: 100-continue\r\nConnection: close\r\n"
    ).partition(b"\r\n\r\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as client:
        client.sendall(head + b"\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"

        client.sendall(body)

        assert client.recv(20).startswith(b"HTTP/1.1 200 OK")


def test_an_old_client_gets_its_answer_and_the_end_of_the_connection(server: Server) -> None:
    received = server.raw(request("/v1/chat/completions", CHAT, version="1.0"))

    assert b"connection: close" in received
    assert b"chat.completion" in received


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", 413),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 70_000, 431),
    ],
)
def test_a_malformed_request_is_refused_and_the_server_goes_on(
    server: Server, sent: bytes, status: int
) -> None:
    received = server.raw(sent)

    assert received.startswith(f"HTTP/1.1 {status} ".encode())
    assert server.get("/health") == {"status": "ok"}


def test_a_prompt_of_megabytes_is_answered(server: Server) -> None:
    answer = server.ask("openai", "word " * 1_000_000)

    assert answer.usage.prompt_tokens == 1_250_000


def test_an_unknown_path_is_told_as_json(server: Server) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.get("/v1/embeddings")

    with caught.value as error:
        assert error.code == 404
        assert "/v1/embeddings" in json.load(error)["error"]["message"]


def test_it_ends_with_the_process_that_started_it(launch: Callable[..., Server]) -> None:
    reading, writing = os.pipe()
    child = launch("--parent-pipe", str(reading), pass_fds=[reading])
    os.close(reading)
    child.process.send_signal(signal.SIGINT)  # Ctrl-C is the parent's business
    assert child.get("/health") == {"status": "ok"}

    os.close(writing)

    assert child.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_even_with_calls_in_flight(
    launch: Callable[..., Server], stop: signal.Signals
) -> None:
    child = launch("--hang-rate", "1")
    threading.Thread(target=child.raw, args=(request("/chat/completions", CHAT),)).start()
    wait_until(lambda: child.get("/stats")["in_flight"] == 1)

    child.process.send_signal(stop)

    assert child.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], ["0.0.0.0", "api_keys"]),
        (["--rpm", "many"], ["rpm", "many"]),
        (["--options", '{"rmp": 3}'], ["rmp", "did you mean rpm?"]),
        (["--options", "{"], ["--options", "JSON"]),
        (["--port", "70000"], ["70000"]),
        (["--host", "no.such.host.invalid"], ["no.such.host.invalid"]),
        (["--parent-pipe", "999"], ["999", "pipe"]),
    ],
)
def test_a_wrong_start_says_why_and_exits_with_2(arguments: list[str], words: list[str]) -> None:
    ended = _run(*arguments)

    assert ended.returncode == 2
    assert all(word in ended.stderr for word in words), ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_port_in_use_is_named_with_what_to_do(server: Server) -> None:
    ended = _run("--port", str(server.port))

    assert ended.returncode == 2
    assert f"port {server.port}" in ended.stderr
    assert "another" in ended.stderr


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "batchq.simulator", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
