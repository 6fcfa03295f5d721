"""The messages of Anthropic."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from batchq.endpoint import ProviderSpec
from batchq.errors import BadRequest, ServerFailed
from batchq.ports import ChatReply, ChatRequest
from batchq.providers.failures import read_json, read_key
from batchq.providers.http import post
from batchq.providers.replies import reply_of

BASE_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"
MAX_TOKENS = 4096  # the API wants a number; this is the smallest maximum of its models
TOOL = "answer"
OURS = frozenset({"model", "messages", "stream", "system"})
_INPUT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class AnthropicMessages:
    """Calls `POST /v1/messages`; a schema becomes a tool that the model is forced to use."""

    def call(self, request: ChatRequest) -> ChatReply:
        """Makes one call; `options.max_tokens` is 4096 unless set, `stop` is translated."""
        provider = request.provider
        key = read_key(provider)
        url = f"{base_url_of(provider)}/v1/messages"
        answer = post(url, headers_of(key), build_body(request), request.timeout_s)
        data = read_json(answer, provider, key)
        return read_reply(data, answer.headers, provider, request.schema)


def base_url_of(provider: ProviderSpec) -> str:
    """Where the provider is, without the version."""
    return (provider.base_url or BASE_URL).rstrip("/").removesuffix("/v1")


def headers_of(key: str) -> dict[str, str]:
    """The headers that a key travels in, and the version that we speak."""
    return {"anthropic-version": VERSION} | ({"x-api-key": key} if key else {})


def build_body(request: ChatRequest) -> dict[str, Any]:
    """The body of a call, online or as a line of an upload."""
    taken = sorted(OURS & request.options.keys())
    if taken:
        raise BadRequest(f"options.{taken[0]} cannot be set: batchq sets it for each call")
    body: dict[str, Any] = {
        "model": request.provider.model,
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": turn.role, "content": turn.content} for turn in request.messages],
    }
    if request.system:
        body["system"] = request.system
    if request.schema is not None:
        tool = {
            "name": TOOL,
            "description": "Gives the answer.",
            "input_schema": _object_schema(request.schema),
        }
        body |= {"tools": [tool], "tool_choice": {"type": "tool", "name": TOOL}}
    options = dict(request.options)
    if "stop" in options:
        stop = options.pop("stop")
        body["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop or [])
    return body | options


def _is_object(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object"


def _object_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A tool's input is an object: any other answer travels as its field `value`."""
    if _is_object(schema):
        return dict(schema)
    inner = dict(schema)
    shared: dict[str, Any] = {
        name: inner.pop(name) for name in ("$schema", "$defs", "definitions") if name in inner
    }
    return {"type": "object", "properties": {"value": inner}, "required": ["value"], **shared}


def read_reply(
    data: Mapping[str, Any],
    headers: Mapping[str, str],
    provider: ProviderSpec,
    schema: Mapping[str, Any] | None,
) -> ChatReply:
    """Reads a message; raises Refused, Truncated or ServerFailed."""
    try:
        text = _text(data["content"], schema)
        counts = data.get("usage") or {}
        read = sum(int(counts.get(name) or 0) for name in _INPUT_COUNTS)
        tokens = (read, int(counts.get("output_tokens") or 0))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise ServerFailed(
            f"provider {provider.name} answered without content: is base_url Anthropic's?"
        ) from None
    why = data.get("stop_reason")
    declined = (text or "no reason given") if why == "refusal" else ""
    is_cut_off = why in ("max_tokens", "model_context_window_exceeded")
    return reply_of(data, headers, provider, text, tokens, declined=declined, is_cut_off=is_cut_off)


def _text(content: Any, schema: Mapping[str, Any] | None) -> str:
    for part in content:
        if schema is not None and part.get("type") == "tool_use" and part.get("name") == TOOL:
            value = part["input"]
            if not _is_object(schema) and isinstance(value, dict) and "value" in value:
                value = value["value"]
            return json.dumps(value, ensure_ascii=False)
    return "".join(part.get("text") or "" for part in content if part.get("type") == "text")
