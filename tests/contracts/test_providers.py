"""What every provider does, against a small HTTP server that answers as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batchq.endpoint import ProviderSpec
from batchq.errors import (
    AuthFailed,
    BadRequest,
    ConnectionFailed,
    ContextTooLong,
    Overloaded,
    ProviderTimeout,
    RateLimited,
    Refused,
    ServerFailed,
    Truncated,
    UnknownModel,
    UsageError,
)
from batchq.outcome import Usage
from batchq.ports import ChatRequest, Message
from batchq.providers import get_provider
from batchq.providers.http import post

KEY = "s3cret-0123456789abcdef"
KINDS = ("openai", "anthropic")
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


class Server(ThreadingHTTPServer):
    """Gives the queued answers one after the other and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: deque = deque()
        self.requests: list[tuple[str, dict, dict]] = []
        self.connections: set = set()
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def will_answer(self, body, status=200, **headers) -> None:
        names = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        self.answers.append((status, names, body))

    @property
    def last_body(self) -> dict:
        return self.requests[-1][2]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.connections.add(self.client_address)
        self.server.requests.append((self.path, headers, body))
        status, extra, answer = self.server.answers.popleft()
        if callable(answer):
            answer(self)
            self.close_connection = True
            return
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    yield running
    running.stopping.set()
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def ask(server_or_url, kind="openai", *, schema=None, options=None, key_env="", timeout_s=10.0):
    url = server_or_url if isinstance(server_or_url, str) else server_or_url.url
    spec = ProviderSpec("acme", kind, url, "model-1", api_key_env=key_env)
    request = ChatRequest(
        spec,
        (Message("user", "hello"),),
        system="be brief",
        options=options or {},
        schema=schema,
        timeout_s=timeout_s,
    )
    return get_provider(kind).call(request)


def answer(kind, text="hi", *, stop="", refusal=None):
    if kind == "anthropic":
        return {
            "id": "msg_1",
            "model": "model-1-exact",
            "content": [{"type": "text", "text": text}],
            "stop_reason": stop or "end_turn",
            "usage": {"input_tokens": 7, "cache_read_input_tokens": 2, "output_tokens": 3},
        }
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {
        "id": "chatcmpl-1",
        "model": "model-1-exact",
        "choices": [{"message": message, "finish_reason": stop or "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3},
    }


def error(message, code=""):
    return {"error": {"message": message, "type": "some_error", "code": code}}


@contextmanager
def took_less_than(seconds):
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def test_an_answer_comes_with_its_model_and_usage(server, kind):
    server.will_answer(answer(kind))

    reply = ask(server, kind)

    assert reply.text == "hi"
    assert reply.model == "model-1-exact"
    assert reply.usage == Usage(calls=1, input_tokens=9, output_tokens=3)


def test_connections_are_used_again(server, kind):
    for _ in range(3):
        server.will_answer(answer(kind))
        ask(server, kind)

    assert len(server.connections) == 1


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, error("bad field"), BadRequest),
        (404, error("no such model"), UnknownModel),
        (404, error("no", "model_not_found"), UnknownModel),
        (404, error("no such page"), BadRequest),
        (301, b"", BadRequest),
        (401, error("bad key"), AuthFailed),
        (402, error("pay first"), AuthFailed),
        (403, error("not yours"), AuthFailed),
        (429, error("slow down"), RateLimited),
        (429, error("quota", "insufficient_quota"), AuthFailed),
        (400, error("too long", "context_length_exceeded"), ContextTooLong),
        (400, error("prompt is too long: 9 tokens"), ContextTooLong),
        (413, b"too large", ContextTooLong),
        (400, error("no", "content_filter"), Refused),
        (408, b"", ProviderTimeout),
        (500, b"<html>oops</html>", ServerFailed),
        (502, b"", ServerFailed),
        (503, {"detail": "busy"}, Overloaded),
        (529, {"type": "error", "error": {"message": "busy"}}, Overloaded),
        (200, b"<html>", ServerFailed),
        (200, {"hello": 1}, ServerFailed),
        (200, b"[1]", ServerFailed),
    ],
)
def test_each_failure_has_its_error(server, kind, status, body, expected):
    server.will_answer(body, status)

    with pytest.raises(expected) as caught:
        ask(server, kind)

    assert type(caught.value) is expected
    assert "acme" in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after_ms": "250", "retry_after": "1"}, 0.25),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_form(server, kind, headers, seconds):
    server.answers.append((429, {k.replace("_", "-"): v for k, v in headers.items()}, b"{}"))

    with pytest.raises(RateLimited) as caught:
        ask(server, kind)

    assert caught.value.retry_after_s == seconds


def test_the_key_is_sent_but_never_told(server, kind, monkeypatch):
    monkeypatch.setenv("ACME_KEY", f"{KEY}\n")
    server.will_answer(error(f"key {KEY} is wrong, as is sk-abcdefgh123"), 401)

    with pytest.raises(AuthFailed) as caught:
        ask(server, kind, key_env="ACME_KEY")

    headers = server.requests[-1][1]
    assert KEY in (headers.get("authorization", "") + headers.get("x-api-key", ""))
    assert KEY not in repr(caught.value)
    assert "sk-abcdefgh123" not in str(caught.value)
    assert "ACME_KEY" in str(caught.value)


@pytest.mark.parametrize("value", [None, "", "caf\u00e9", "two\nlines"])
def test_a_key_that_is_none_names_its_variable(server, kind, monkeypatch, value):
    monkeypatch.delenv("ACME_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("ACME_KEY", value)

    with pytest.raises(AuthFailed, match="ACME_KEY"):
        ask(server, kind, key_env="ACME_KEY")

    assert server.requests == []


def test_a_refused_connection_is_told_by_its_host(server, kind):
    url = server.url
    server.server_close()

    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1"):
        ask(url, kind)


def test_a_dropped_connection_is_a_failed_connection(server, kind):
    server.will_answer(lambda handler: None)

    with pytest.raises(ConnectionFailed):
        ask(server, kind)


def test_an_answer_that_breaks_off_is_a_failed_connection(server, kind):
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"
    server.will_answer(lambda handler: handler.wfile.write(head))

    with pytest.raises(ConnectionFailed):
        ask(server, kind)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n"])
def test_a_dripping_server_does_not_outlast_the_deadline(server, kind, head):
    def drip(handler) -> None:
        try:
            handler.wfile.write(head)
            while not handler.server.stopping.wait(0.05):
                handler.wfile.write(b"x")
        except OSError:
            pass  # the client has gone

    server.will_answer(drip)

    with took_less_than(2.0), pytest.raises(ProviderTimeout, match=r"0\.3 s"):
        ask(server, kind, timeout_s=0.3)


def test_a_silent_server_does_not_outlast_the_deadline(server, kind):
    server.will_answer(lambda handler: handler.server.stopping.wait(5))

    with took_less_than(2.0), pytest.raises(ProviderTimeout):
        ask(server, kind, timeout_s=0.2)


def test_a_proxy_of_the_environment_is_used_and_the_login_of_a_url(server, kind, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    server.answers.append((200, {}, answer(kind)))

    reply = ask(f"http://me:word@{kind}.invalid/v1", kind)

    path, headers, _ = server.requests[-1]
    assert reply.text == "hi"
    assert path.startswith(f"http://{kind}.invalid/v1/")
    assert headers["authorization"] == "Basic bWU6d29yZA=="


def test_a_header_that_cannot_be_sent_is_told_without_its_value(server):
    with pytest.raises(BadRequest, match="holds what no header may hold") as raised:
        post(server.url, {"authorization": "Bearer secret\nkey"}, {}, 1.0)

    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_url_that_is_none_is_a_bad_request(kind):
    with pytest.raises(BadRequest, match="base_url"):
        ask("no-scheme", kind)


def test_an_option_that_batchq_sets_itself_is_refused(server, kind):
    with pytest.raises(BadRequest, match=r"options\.stream"):
        ask(server, kind, options={"stream": True})


def test_options_travel_as_they_are(server, kind):
    server.will_answer(answer(kind))

    ask(server, kind, options={"temperature": 0.2, "max_tokens": 50, "vendor_flag": True})

    assert server.last_body["temperature"] == 0.2
    assert server.last_body["max_tokens"] == 50
    assert server.last_body["vendor_flag"] is True


@pytest.mark.parametrize(("kind", "stop"), [("openai", "length"), ("anthropic", "max_tokens")])
def test_a_cut_answer_is_truncated_and_its_tokens_are_known(server, kind, stop):
    server.will_answer(answer(kind, '{"a": 1', stop=stop))

    with pytest.raises(Truncated) as caught:
        ask(server, kind)

    assert caught.value.tokens == (9, 3)
    assert caught.value.raw == '{"a": 1'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("openai", answer("openai", None, refusal="I will not")),
        ("openai", answer("openai", "", stop="content_filter")),
        ("anthropic", answer("anthropic", "I will not", stop="refusal")),
    ],
)
def test_a_refusal_is_refused(server, kind, body):
    server.will_answer(body)

    with pytest.raises(Refused):
        ask(server, kind)


def test_openai_is_asked_for_the_schema(server):
    server.will_answer(answer("openai"))

    ask(server, schema=SCHEMA)

    path, _, body = server.requests[-1]
    assert path == "/chat/completions"
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert body["messages"][0] == {"role": "system", "content": "be brief"}


def test_a_server_that_knows_only_json_object_is_asked_for_that_from_then_on(server):
    server.will_answer(error("This response_format type is unavailable now"), 400)
    server.will_answer(answer("openai"))
    server.will_answer(answer("openai"))

    ask(server, schema=SCHEMA)
    ask(server, schema=SCHEMA)

    forms = [body["response_format"]["type"] for _, _, body in server.requests]
    assert forms == ["json_schema", "json_object", "json_object"]


def test_a_server_that_knows_no_response_format_is_asked_without(server):
    server.will_answer(error("response_format is not supported"), 400)
    server.will_answer(error("response_format is not supported"), 400)
    server.will_answer(answer("openai"))

    ask(server, schema=SCHEMA)

    assert "response_format" not in server.last_body


def test_a_model_that_wants_max_completion_tokens_gets_it(server):
    words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.will_answer(error(words), 400)
    server.will_answer(answer("openai"))

    ask(server, options={"max_tokens": 50})

    assert server.last_body["max_completion_tokens"] == 50
    assert "max_tokens" not in server.last_body


def test_anthropic_answers_a_schema_through_a_tool(server):
    body = answer("anthropic", stop="tool_use")
    body["content"] = [{"type": "tool_use", "name": "answer", "input": {"a": 1}}]
    server.will_answer(body)

    reply = ask(server, "anthropic", schema=SCHEMA, options={"stop": "END"})

    path, headers, sent = server.requests[-1]
    assert json.loads(reply.text) == {"a": 1}
    assert path == "/v1/messages"
    assert headers["anthropic-version"] == "2023-06-01"
    assert sent["tools"][0]["input_schema"] == SCHEMA
    assert sent["tool_choice"] == {"type": "tool", "name": "answer"}
    assert sent["max_tokens"] == 4096
    assert sent["stop_sequences"] == ["END"]
    assert sent["system"] == "be brief"


def test_anthropic_wraps_a_schema_that_is_no_object(server):
    schema = {"type": "array", "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "integer"}}}
    body = answer("anthropic", stop="tool_use")
    body["content"] = [{"type": "tool_use", "name": "answer", "input": {"value": [1, 2]}}]
    server.will_answer(body)

    reply = ask(server, "anthropic", schema=schema)

    sent = server.last_body["tools"][0]["input_schema"]
    assert json.loads(reply.text) == [1, 2]
    assert sent["type"] == "object"
    assert sent["$defs"] == schema["$defs"]


def test_the_simulator_speaks_openai(server):
    server.will_answer(answer("openai"))

    assert ask(server, "simulator").text == "hi"


def test_an_unknown_kind_lists_the_known():
    with pytest.raises(UsageError, match="anthropic, openai, simulator"):
        get_provider("opnai")
