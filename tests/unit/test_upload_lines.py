"""Whatever a provider sends about an upload is read, or told as its error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.endpoint import ProviderSpec
from batchq.errors import (
    BadRequest,
    ProviderError,
    ServerFailed,
    UploadCancelled,
    UploadExpired,
    UploadQuotaUsedUp,
)
from batchq.providers import anthropic_uploads, openai_uploads
from batchq.providers.wire import Wire

KEY = "s3cret-0123456789abcdef"
WIRE = Wire(
    ProviderSpec("acme", "openai", "http://127.0.0.1:1", "m"), "http://127.0.0.1:1", {}, KEY
)
NAMES = """custom_id response error status_code body choices message content usage prompt_tokens
code finish_reason refusal result type input_tokens output_tokens text input name stop_reason id
request_counts total completed status created_at expires_at errors data line model"""
KEYS = st.sampled_from(NAMES.split())
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 600)
    | st.floats()
    | st.integers(10**18, 10**400)
    | st.text(max_size=3)
    | st.sampled_from(["succeeded", "errored", "expired", "tool_use", "answer", "failed", "2024"])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


def _anthropic_line(line: Mapping[str, Any], wire: Wire) -> Any:
    return anthropic_uploads.read_line(line, wire, {"type": "array"})


def _is_read_or_told(read: Callable[[Any, Wire], Any], value: Any) -> None:
    try:
        found = read(value, WIRE)
    except ProviderError as error:
        found = error
    assert isinstance(getattr(found, "text", str(found)), str)


@given(JSON, JSON)
def test_a_line_of_openai_is_read_or_told(one: Any, two: Any) -> None:
    good = {"content": "x"}
    for response in (
        one,
        {"status_code": one, "body": two},
        {"status_code": 200, "body": {"choices": [one], "usage": two}},
        {"status_code": 200, "body": {"choices": [{"message": one, "finish_reason": two}]}},
        {"status_code": 200, "body": {"choices": [{"message": good}], "model": one,
                                      "usage": {"prompt_tokens": one}}},
    ):  # fmt: skip
        _is_read_or_told(openai_uploads.read_line, {"response": response, "error": two})


@given(JSON, JSON)
def test_a_line_of_anthropic_is_read_or_told(one: Any, two: Any) -> None:
    for result in (
        one,
        {"type": "succeeded", "message": {"content": one, "usage": two}},
        {"type": "succeeded", "message": {"content": [one], "usage": {"output_tokens": two}}},
        {"type": "succeeded", "message": {"content": [{"type": "tool_use", "name": "answer",
                                                       "input": one}], "stop_reason": two}},
        {"type": "errored", "error": one},
        {"type": "errored", "error": {"error": one}},
    ):  # fmt: skip
        _is_read_or_told(_anthropic_line, {"result": result})


@given(JSON, JSON)
def test_where_an_upload_stands_is_read_or_told(one: Any, two: Any) -> None:
    for read in (openai_uploads.read_upload, anthropic_uploads.read_upload):
        _is_read_or_told(read, {"id": "b", "status": "failed", "errors": one})
        _is_read_or_told(read, {"id": "b", "request_counts": one, "created_at": two})
        _is_read_or_told(read, {"id": one, "created_at": "2024", "expires_at": two})


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("batch_expired", UploadExpired),
        ("EXPIRED", UploadExpired),
        ("batch_cancelled", UploadCancelled),
        ("request_canceled", UploadCancelled),
        ("internal_error", ServerFailed),
        ("", ServerFailed),
    ],
)
def test_a_line_without_an_answer_says_why(code: str, kind: type[ProviderError]) -> None:
    line = {"custom_id": "a", "response": None, "error": {"code": code, "message": f"no {KEY}"}}

    with pytest.raises(kind, match=r"acme: no \[key\]"):
        openai_uploads.read_line(line, WIRE)


@pytest.mark.parametrize(
    ("errors", "kind", "words"),
    [
        (
            {"data": [{"code": "token_limit_exceeded", "message": "no room"}]},
            UploadQuotaUsedUp,
            "no",
        ),
        (
            {"data": [{"message": "The number of enqueued tokens has surpassed the limit of 30K"}]},
            UploadQuotaUsedUp,
            "30K",
        ),
        ({"data": [{"message": "bad", "line": 7}]}, BadRequest, "line 7: bad"),
        ({"data": [{"message": f"m{n}"} for n in range(5)]}, BadRequest, "m2; and 2 more"),
        ("wrong file", BadRequest, "wrong file"),
        ({"data": [{"message": f"your key {KEY}"}]}, BadRequest, r"your key \[key\]"),
        (None, BadRequest, "does not say why"),
    ],
)
def test_a_rejection_says_why(errors: Any, kind: type[ProviderError], words: str) -> None:
    told = openai_uploads.read_upload({"id": "b1", "status": "failed", "errors": errors}, WIRE)

    assert type(told.rejection) is kind
    with pytest.raises(kind, match=words):
        raise told.rejection
