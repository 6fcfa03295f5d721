"""A call and its answer, apart from the wire format that they travel in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

CHARS_PER_TOKEN = 4


class Structure(StrEnum):
    """In what form an answer is wanted."""

    TEXT = "text"  # sentences
    JSON = "json"  # a JSON text, of the schema if there is one
    TOOL = "tool"  # a call of a tool with arguments of its schema


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model, as either format asked it.

    `prompt` is all that was said, in one text. `schema` is a JSON Schema as a text, sorted by
    its keys; an empty one in JSON is any object.
    """

    model: str
    prompt: str
    structure: Structure = Structure.TEXT
    schema: str = ""
    tool: str = ""
    max_tokens: int | None = None


class Ending(StrEnum):
    """Why an answer ended."""

    DONE = "done"  # all is said
    LENGTH = "length"  # cut off at max_tokens
    REFUSAL = "refusal"  # the model declined


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said: `text`, which of a tool call are the arguments.

    `value` is the parsed text of a structured answer, None where it was spoilt.
    """

    text: str
    ending: Ending
    input_tokens: int
    output_tokens: int
    value: Any = None
    structure: Structure = Structure.TEXT
    tool: str = ""


class Rejected(Exception):
    """Raised when a request is answered with an error that no fault rate decided."""

    def __init__(self, kind: Rejection, message: str, *, code: str | None = None) -> None:
        self.kind = kind
        self.code = code
        super().__init__(message)


class Rejection(StrEnum):
    """The errors that both formats know, each with its own words for it."""

    BAD_REQUEST = "bad_request"  # 400
    BAD_KEY = "bad_key"  # 401
    UNKNOWN_MODEL = "unknown_model"  # 404
    UNKNOWN_PATH = "unknown_path"  # 404
    UNKNOWN_ID = "unknown_id"  # 404
    CONFLICT = "conflict"  # 409
    TOO_LARGE = "too_large"  # 413
    WRONG_METHOD = "wrong_method"  # 405
    RATE_LIMITED = "rate_limited"  # 429
    SERVER_ERROR = "server_error"  # 500
    OVERLOADED = "overloaded"  # 529 or 503


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response: `body` is written as JSON, unless there is `content`.

    One that `is_cut` breaks off half way.
    """

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    is_cut: bool = False


def estimate_tokens(text: str) -> int:
    """Estimates the tokens of a text at four characters each, at least one."""
    return max(1, -(-len(text) // CHARS_PER_TOKEN))


def bearer_of(headers: Mapping[str, str]) -> str:
    """Reads the bearer token of a request, empty without one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def json_object(raw: bytes) -> Mapping[str, Any]:
    """Reads a JSON object, or rejects the request."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Rejected(Rejection.BAD_REQUEST, f"This is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise Rejected(Rejection.BAD_REQUEST, "A JSON object is needed")
    return body


def require(body: Mapping[str, Any], key: str, kind: type, meaning: str) -> Any:
    """Takes a field out of a request's body, or rejects the request by the field's name."""
    value = body.get(key)
    is_right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if not is_right or not value:
        raise Rejected(Rejection.BAD_REQUEST, f"{key}: {meaning} is required")
    return value


def optional_count(body: Mapping[str, Any], key: str) -> int | None:
    """Takes a positive whole number out of a request's body, if it is there."""
    if body.get(key) is None:
        return None
    count: int = require(body, key, int, "a whole number over 0")
    if count < 0:
        raise Rejected(Rejection.BAD_REQUEST, f"{key}: a whole number over 0 is required")
    return count


def refuse_streams(body: Mapping[str, Any]) -> None:
    """Rejects what this server does not do, instead of answering it in another way."""
    if body.get("stream"):
        raise Rejected(
            Rejection.BAD_REQUEST, "stream: this simulator does not stream; send stream: false"
        )


def text_of(content: Any) -> str:
    """Reads the text of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list):
        return "\n".join(map(_text_of_part, content))
    raise Rejected(Rejection.BAD_REQUEST, "messages: content must be a string or a list of parts")


def _text_of_part(part: Any) -> str:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    return json.dumps(part)


def text_of_messages(messages: list[Any]) -> str:
    """Joins the turns of a conversation into one prompt."""
    turns = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Rejected(Rejection.BAD_REQUEST, "messages: each must be an object with a role")
        calls = message.get("tool_calls")
        turns.append(text_of(message.get("content")) + (json.dumps(calls) if calls else ""))
    return "\n\n".join(turns)


def schema_of(value: Any, place: str) -> str:
    """Takes a JSON Schema out of a request's body, as a text."""
    if not isinstance(value, dict):
        raise Rejected(Rejection.BAD_REQUEST, f"{place}: a JSON Schema (an object) is required")
    return json.dumps(value, sort_keys=True)
