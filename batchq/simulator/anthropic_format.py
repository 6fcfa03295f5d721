"""Anthropic's messages: requests read, answers and errors written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from batchq.simulator.chat import (
    Answer,
    Call,
    Ending,
    Rejected,
    Rejection,
    Response,
    Structure,
    bearer_of,
    optional_count,
    refuse_streams,
    require,
    schema_of,
    text_of,
    text_of_messages,
)
from batchq.simulator.limits import LimitState

CREATED = "2024-01-01T00:00:00Z"
REQUEST_ID_HEADER = "request-id"
ERRORS: Mapping[Rejection, tuple[int, str]] = {
    Rejection.BAD_REQUEST: (400, "invalid_request_error"),
    Rejection.BAD_KEY: (401, "authentication_error"),
    Rejection.UNKNOWN_MODEL: (404, "not_found_error"),
    Rejection.UNKNOWN_PATH: (404, "not_found_error"),
    Rejection.UNKNOWN_ID: (404, "not_found_error"),
    Rejection.CONFLICT: (409, "invalid_request_error"),
    Rejection.TOO_LARGE: (413, "request_too_large"),
    Rejection.WRONG_METHOD: (405, "invalid_request_error"),
    Rejection.RATE_LIMITED: (429, "rate_limit_error"),
    Rejection.SERVER_ERROR: (500, "api_error"),
    Rejection.OVERLOADED: (529, "overloaded_error"),
}
STOP_REASONS = {
    Ending.DONE: "end_turn",
    Ending.LENGTH: "max_tokens",
    Ending.REFUSAL: "refusal",
}


def key_of(headers: Mapping[str, str]) -> str:
    """Reads the API key of a request; newer clients send it as a bearer token."""
    return headers.get("x-api-key", "").strip() or bearer_of(headers)


def read_call(body: Mapping[str, Any], headers: Mapping[str, str]) -> Call:
    """Reads a request; raises Rejected for what is wrong or not done here."""
    if not headers.get("anthropic-version"):
        raise Rejected(Rejection.BAD_REQUEST, "anthropic-version: header is required")
    refuse_streams(body)
    structure, schema, tool = _wanted_form(body)
    messages = text_of_messages(require(body, "messages", list, "a list of messages"))
    max_tokens = optional_count(body, "max_tokens")
    if max_tokens is None:
        raise Rejected(Rejection.BAD_REQUEST, "max_tokens: Field required")
    return Call(
        model=require(body, "model", str, "the name of a model"),
        prompt="\n\n".join(filter(None, (text_of(body.get("system")), messages))),
        structure=structure,
        schema=schema,
        tool=tool,
        max_tokens=max_tokens,
    )


def _wanted_form(body: Mapping[str, Any]) -> tuple[Structure, str, str]:
    choice = body.get("tool_choice")
    match choice.get("type") if isinstance(choice, dict) else choice:
        case "tool" | "any":
            name, schema = _forced_tool(body.get("tools"), choice)
            return Structure.TOOL, schema, name
        case None | "auto" | "none":
            pass
        case other:
            raise Rejected(
                Rejection.BAD_REQUEST,
                f"tool_choice: its type must be auto, any, tool or none, not {other!r}",
            )
    config = body.get("output_config")
    form = config.get("format") if isinstance(config, dict) else None
    if form is None:
        return Structure.TEXT, "", ""
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        raise Rejected(Rejection.BAD_REQUEST, "output_config.format: its type must be json_schema")
    return Structure.JSON, schema_of(form.get("schema"), "output_config.format.schema"), ""


def _forced_tool(tools: Any, choice: Any) -> tuple[str, str]:
    schemas = {
        tool["name"]: tool.get("input_schema")
        for tool in (tools if isinstance(tools, list) else ())
        if isinstance(tool, dict) and isinstance(tool.get("name"), str)
    }
    name = next(iter(schemas), "") if choice["type"] == "any" else str(choice.get("name"))
    if name not in schemas:
        raise Rejected(
            Rejection.BAD_REQUEST, f"tool_choice: there is no tool named {name!r} among tools"
        )
    return name, schema_of(schemas[name], f"tools: input_schema of {name}")


def write_answer(call: Call, answer: Answer, request_id: str) -> Mapping[str, Any]:
    """Writes the body of a good response.

    A tool's input is an object here, so that spoilt arguments come as text instead.
    """
    content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}]
    reason = STOP_REASONS[answer.ending]
    if answer.ending is Ending.REFUSAL:
        content = []
    elif answer.structure is Structure.TOOL and isinstance(answer.value, dict):
        tool = {"type": "tool_use", "name": answer.tool, "input": answer.value}
        content = [{"id": f"toolu_{request_id}", **tool}]
        reason = "tool_use" if answer.ending is Ending.DONE else reason
    return {
        "id": f"msg_{request_id}",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens},
    }


def write_error(error: Rejected, request_id: str) -> Response:
    """Writes an error as Anthropic's servers do."""
    status, kind = ERRORS[error.kind]
    inside = {"type": kind, "message": str(error)}
    return Response(status, {"type": "error", "error": inside, "request_id": f"req_{request_id}"})


def write_models(names: Sequence[str]) -> Mapping[str, Any]:
    """Writes the list of models."""
    data = [write_model(name) for name in names]
    return {"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}


def write_model(name: str) -> Mapping[str, Any]:
    """Writes one model."""
    return {
        "id": name,
        "type": "model",
        "display_name": name,
        "created_at": CREATED,
        "lifecycle": "active",
    }


def limit_headers(limits: Mapping[str, LimitState]) -> dict[str, str]:
    """Writes the headers that tell what is left of the limits."""
    headers = {}
    now = datetime.now(UTC)
    for name, state in limits.items():
        headers[f"anthropic-ratelimit-{name}-limit"] = str(state.limit)
        headers[f"anthropic-ratelimit-{name}-remaining"] = str(max(0, state.remaining))
        full_at = now + timedelta(seconds=math.ceil(state.reset_s))
        headers[f"anthropic-ratelimit-{name}-reset"] = full_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return headers


def retry_headers(retry_after_s: float) -> dict[str, str]:
    """Writes when a refused call may come again."""
    return {"retry-after": str(math.ceil(retry_after_s))}
