"""OpenAI's chat completions: requests read, answers and errors written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    text_of_messages,
)
from batchq.simulator.limits import LimitState

CREATED = 1_700_000_000
REQUEST_ID_HEADER = "x-request-id"
# kind: (status, type, code)
ERRORS: Mapping[Rejection, tuple[int, str, str | None]] = {
    Rejection.BAD_REQUEST: (400, "invalid_request_error", None),
    Rejection.BAD_KEY: (401, "invalid_request_error", "invalid_api_key"),
    Rejection.UNKNOWN_MODEL: (404, "invalid_request_error", "model_not_found"),
    Rejection.UNKNOWN_PATH: (404, "invalid_request_error", "unknown_url"),
    Rejection.UNKNOWN_ID: (404, "invalid_request_error", None),
    Rejection.CONFLICT: (409, "invalid_request_error", None),
    Rejection.TOO_LARGE: (413, "invalid_request_error", None),
    Rejection.WRONG_METHOD: (405, "invalid_request_error", "method_not_supported"),
    Rejection.RATE_LIMITED: (429, "rate_limit_error", "rate_limit_exceeded"),
    Rejection.SERVER_ERROR: (500, "server_error", None),
    Rejection.OVERLOADED: (503, "server_error", "overloaded"),
}


def key_of(headers: Mapping[str, str]) -> str:
    """Reads the API key of a request."""
    return bearer_of(headers)


def read_call(body: Mapping[str, Any], headers: Mapping[str, str]) -> Call:  # noqa: ARG001
    """Reads a request; raises Rejected for what is wrong or not done here."""
    refuse_streams(body)
    if body.get("n") not in (None, 1):
        raise Rejected(Rejection.BAD_REQUEST, "n: this simulator gives one choice; send n: 1")
    structure, schema, tool = _wanted_form(body)
    return Call(
        model=require(body, "model", str, "the name of a model"),
        prompt=text_of_messages(require(body, "messages", list, "a list of messages")),
        structure=structure,
        schema=schema,
        tool=tool,
        max_tokens=optional_count(body, "max_completion_tokens")
        or optional_count(body, "max_tokens"),
    )


def _wanted_form(body: Mapping[str, Any]) -> tuple[Structure, str, str]:
    choice = body.get("tool_choice")
    if choice not in (None, "auto", "none"):
        name, schema = _forced_tool(body.get("tools"), choice)
        return Structure.TOOL, schema, name
    form = body.get("response_format") or {"type": "text"}
    match form.get("type") if isinstance(form, dict) else None:
        case "text":
            return Structure.TEXT, "", ""
        case "json_object":
            return Structure.JSON, "", ""
        case "json_schema":
            place = "response_format.json_schema"
            inside = form.get("json_schema")
            if not isinstance(inside, dict) or not isinstance(inside.get("name"), str):
                raise Rejected(Rejection.BAD_REQUEST, f"{place}.name: a name is required")
            return Structure.JSON, schema_of(inside.get("schema"), f"{place}.schema"), ""
    raise Rejected(
        Rejection.BAD_REQUEST, "response_format: its type must be text, json_object or json_schema"
    )


def _forced_tool(tools: Any, choice: Any) -> tuple[str, str]:
    functions = {}
    for tool in tools if isinstance(tools, list) else ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            functions[function["name"]] = function.get("parameters") or {"type": "object"}
    if choice == "required" and functions:
        name = next(iter(functions))
    else:
        wanted = choice.get("function") if isinstance(choice, dict) else None
        name = str(wanted.get("name")) if isinstance(wanted, dict) else str(choice)
    if name not in functions:
        raise Rejected(
            Rejection.BAD_REQUEST, f"tool_choice: there is no tool named {name!r} among tools"
        )
    return name, schema_of(functions[name], f"tools: parameters of {name}")


def write_answer(call: Call, answer: Answer, request_id: str) -> Mapping[str, Any]:
    """Writes the body of a good response."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    reason = "length" if answer.ending is Ending.LENGTH else "stop"
    if answer.ending is Ending.REFUSAL:
        message.update(content=None, refusal=answer.text)
    elif answer.structure is Structure.TOOL:
        function = {"name": answer.tool, "arguments": answer.text}
        tool_call = {"id": f"call_{request_id}", "type": "function", "function": function}
        message.update(content=None, tool_calls=[tool_call])
        reason = "length" if answer.ending is Ending.LENGTH else "tool_calls"
    return {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion",
        "created": CREATED,
        "model": call.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": {
            "prompt_tokens": answer.input_tokens,
            "completion_tokens": answer.output_tokens,
            "total_tokens": answer.input_tokens + answer.output_tokens,
        },
        "system_fingerprint": "fp_simulator",
    }


def write_error(error: Rejected, request_id: str) -> Response:  # noqa: ARG001 (in the header)
    """Writes an error as OpenAI's servers do."""
    status, kind, code = ERRORS[error.kind]
    inside = {"message": str(error), "type": kind, "param": None, "code": error.code or code}
    return Response(status, {"error": inside})


def write_models(names: Sequence[str]) -> Mapping[str, Any]:
    """Writes the list of models."""
    return {"object": "list", "data": [write_model(name) for name in names]}


def write_model(name: str) -> Mapping[str, Any]:
    """Writes one model."""
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "batchq"}


def limit_headers(limits: Mapping[str, LimitState]) -> dict[str, str]:
    """Writes the headers that tell what is left of the limits."""
    headers = {}
    for name, state in limits.items():
        headers[f"x-ratelimit-limit-{name}"] = str(state.limit)
        headers[f"x-ratelimit-remaining-{name}"] = str(max(0, state.remaining))
        headers[f"x-ratelimit-reset-{name}"] = _duration(state.reset_s)
    return headers


def retry_headers(retry_after_s: float) -> dict[str, str]:
    """Writes when a refused call may come again."""
    return {
        "retry-after": str(math.ceil(retry_after_s)),
        "retry-after-ms": str(math.ceil(retry_after_s * 1000)),
    }


def _duration(seconds: float) -> str:
    """Writes a duration as these headers do: 6m0s, 8.64s, 17ms."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".")
    return f"{int(minutes)}m{text}s" if minutes else f"{text}s"
