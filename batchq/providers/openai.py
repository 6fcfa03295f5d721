"""The chat completions of OpenAI, which most servers speak (vLLM, DeepSeek, Groq, Ollama, ...)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchq.endpoint import ProviderSpec
from batchq.errors import BadRequest, ProviderError, ServerFailed
from batchq.ports import ChatReply, ChatRequest
from batchq.providers.failures import failure, read_json, read_key
from batchq.providers.http import post
from batchq.providers.replies import reply_of

BASE_URL = "https://api.openai.com/v1"
OURS = frozenset({"model", "messages", "stream", "n"})


class Dialects:
    """What forms servers were found to want, by endpoint and model.

    They differ in two fields: some know no `json_schema`, some no `max_tokens`.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], frozenset[str]] = {}

    def of(self, provider: ProviderSpec) -> frozenset[str]:
        """What is known of the model at its endpoint."""
        return self._known.get((base_url_of(provider), provider.model), frozenset())

    def learn(
        self, provider: ProviderSpec, error: ProviderError, asked: Mapping[str, Any]
    ) -> frozenset[str]:
        """What a refusal shows beyond what was `asked`: another form, or nothing."""
        learned = frozenset(filter(None, [_learn(error, asked)]))
        self._known[base_url_of(provider), provider.model] = self.of(provider) | learned
        return learned


class OpenAIChat:
    """Calls `POST /chat/completions`.

    What form a server refused is remembered, so that it is asked twice only once.
    """

    def __init__(self) -> None:
        self.dialects = Dialects()

    def call(self, request: ChatRequest) -> ChatReply:
        """Makes one call; a second one when the server refuses the form of the first."""
        provider = request.provider
        key = read_key(provider)
        url = f"{base_url_of(provider)}/chat/completions"
        while True:
            dialect = self.dialects.of(provider)
            body = build_body(request, dialect)
            answer = post(url, headers_of(key), body, request.timeout_s)
            if answer.status in (400, 422):
                refusal = failure(answer, provider, key)
                if self.dialects.learn(provider, refusal, body) - dialect:
                    continue
            return read_reply(read_json(answer, provider, key), answer.headers, provider)


def base_url_of(provider: ProviderSpec) -> str:
    """Where the provider is, without a slash at the end."""
    if provider.base_url:
        return provider.base_url.rstrip("/")
    if provider.kind == "openai":
        return BASE_URL
    raise BadRequest(f"provider {provider.name}: kind {provider.kind} needs a base_url")


def headers_of(key: str) -> dict[str, str]:
    """The headers that a key travels in."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def build_body(request: ChatRequest, dialect: frozenset[str]) -> dict[str, Any]:
    """The body of a call, online or as a line of an upload."""
    taken = sorted(OURS & request.options.keys())
    if taken:
        raise BadRequest(f"options.{taken[0]} cannot be set: batchq sets it for each call")
    messages = [{"role": turn.role, "content": turn.content} for turn in request.messages]
    if request.system:
        messages.insert(0, {"role": "system", "content": request.system})
    body: dict[str, Any] = {"model": request.provider.model, "messages": messages}
    if request.schema is not None:
        body["response_format"] = _response_format(request.schema, dialect)
    body.update(request.options)
    if "max_completion_tokens" in dialect and "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")
    if "no_response_format" in dialect:
        body.pop("response_format", None)
    return body


def _response_format(schema: Mapping[str, Any], dialect: frozenset[str]) -> dict[str, Any]:
    if "json_object" in dialect:
        return {"type": "json_object"}
    # Strict mode takes only a part of JSON Schema; answers are validated here in any case.
    form = {"name": "answer", "schema": dict(schema), "strict": False}
    return {"type": "json_schema", "json_schema": form}


def _learn(error: ProviderError, body: Mapping[str, Any]) -> str:
    """Which other form a server wants that refused this one; "" if that was not the reason."""
    words = str(error)
    if "max_tokens" in body and "max_completion_tokens" in words:
        return "max_completion_tokens"
    form = body.get("response_format")
    if not isinstance(form, dict) or not any(
        word in words for word in ("response_format", "json_schema", "json_object")
    ):
        return ""
    return "json_object" if form.get("type") == "json_schema" else "no_response_format"


def read_reply(
    data: Mapping[str, Any], headers: Mapping[str, str], provider: ProviderSpec
) -> ChatReply:
    """Reads the body of a chat completion; raises Refused, Truncated or ServerFailed."""
    try:
        choice = data["choices"][0]
        message = choice["message"]
        text = _text(message.get("content"))
        counts = data.get("usage") or {}
        tokens = (int(counts.get("prompt_tokens") or 0), int(counts.get("completion_tokens") or 0))
    except (AttributeError, KeyError, IndexError, OverflowError, TypeError, ValueError):
        raise ServerFailed(
            f"provider {provider.name} answered without choices[0].message: "
            "is base_url an OpenAI-compatible endpoint?"
        ) from None
    why = choice.get("finish_reason")
    filtered = "stopped by the provider's content filter" if why == "content_filter" else ""
    declined = str(message.get("refusal") or filtered)
    is_cut_off = why == "length"
    return reply_of(data, headers, provider, text, tokens, declined=declined, is_cut_off=is_cut_off)


def _text(content: Any) -> str:
    if isinstance(content, list):  # some servers send parts
        return "".join(part.get("text") or "" for part in content)
    if content is not None and not isinstance(content, str):
        raise TypeError("content is neither a text nor a list of parts")
    return content or ""
