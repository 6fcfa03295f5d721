"""The chat completions of OpenAI, which most servers speak (vLLM, DeepSeek, Groq, Ollama, ...)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchq.errors import BadRequest, ProviderError, ServerFailed
from batchq.ports import ChatReply, ChatRequest
from batchq.providers.failures import failure, read_json, read_key
from batchq.providers.http import Answer, post
from batchq.providers.replies import reply_of

BASE_URL = "https://api.openai.com/v1"
OURS = frozenset({"model", "messages", "stream", "n"})


class OpenAIChat:
    """Calls `POST /chat/completions`.

    Servers differ in two fields: some know no `json_schema`, some no `max_tokens`. What a server
    refused is remembered for its endpoint and model, so that it is asked twice only once.
    """

    def __init__(self) -> None:
        self._dialects: dict[tuple[str, str], frozenset[str]] = {}

    def call(self, request: ChatRequest) -> ChatReply:
        """Makes one call; a second one when the server refuses the form of the first."""
        provider = request.provider
        key = read_key(provider)
        base_url = _base_url(request)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        place = (base_url, provider.model)
        while True:
            dialect = self._dialects.get(place, frozenset())
            body = _body(request, dialect)
            answer = post(f"{base_url}/chat/completions", headers, body, request.timeout_s)
            learned = (
                _learn(failure(answer, provider, key), body) if answer.status in (400, 422) else ""
            )
            if not learned or learned in dialect:
                return _reply(answer, request, key)
            self._dialects[place] = dialect | {learned}


def _base_url(request: ChatRequest) -> str:
    provider = request.provider
    if provider.base_url:
        return provider.base_url.rstrip("/")
    if provider.kind == "openai":
        return BASE_URL
    raise BadRequest(f"provider {provider.name}: kind {provider.kind} needs a base_url")


def _body(request: ChatRequest, dialect: frozenset[str]) -> dict[str, Any]:
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


def _reply(answer: Answer, request: ChatRequest, key: str) -> ChatReply:
    provider = request.provider
    data = read_json(answer, provider, key)
    try:
        choice = data["choices"][0]
        message = choice["message"]
        text = _text(message.get("content"))
        counts = data.get("usage") or {}
        tokens = (int(counts.get("prompt_tokens") or 0), int(counts.get("completion_tokens") or 0))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise ServerFailed(
            f"provider {provider.name} answered without choices[0].message: "
            "is base_url an OpenAI-compatible endpoint?"
        ) from None
    why = choice.get("finish_reason")
    filtered = "stopped by the provider's content filter" if why == "content_filter" else ""
    declined = str(message.get("refusal") or filtered)
    is_cut_off = why == "length"
    return reply_of(answer, request, data, text, tokens, declined=declined, is_cut_off=is_cut_off)


def _text(content: Any) -> str:
    if isinstance(content, list):  # some servers send parts
        return "".join(part.get("text") or "" for part in content)
    return content or ""
