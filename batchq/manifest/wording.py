"""Says in people's words what pydantic found, at the place of the key."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from batchq.manifest.models import STEP_ALIASES, TOP_ALIASES, Manifest, Place, Step
from batchq.manifest.scalars import shown
from batchq.manifest.yamlfile import KeyPath

Report = Callable[[KeyPath, str, str], None]

_BELONGS = {
    **{name: f"{name} goes under `options:`"
       for name in ("temperature", "max_tokens", "top_p", "top_k", "stop")},
    **{name: f"{name} goes under `limits:` of a provider"
       for name in ("rpm", "tpm", "concurrency", "rates")},
    "max_retries": "max_retries goes under `retry:`",
    "api_key": "a key never stands in a manifest; name its variable: api_key_env: NAME",
    "schema": "did you mean `output_schema`?",
    "workers": "on the command line: batchq submit --workers N",
}  # fmt: skip
_EXPECTED = {
    "string_type": "a text",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "list_type": "a list",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
}
NOT_YET = "is part of the manifest format but this version of batchq does not do it yet"


def report_errors(
    error: ValidationError, places: Mapping[KeyPath, Place], data: Any, report: Report
) -> None:
    """Reports each error once; the members of a union that all failed become one."""
    found: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        found.setdefault(_real_path(details, data), []).append(details)
    for key, group in found.items():
        report(key, *_worded(key, group, places))


def _real_path(details: ErrorDetails, data: Any) -> KeyPath:
    """The location without the tags that pydantic adds for unions and validators."""
    key: list[str | int] = []
    value = data
    for part in details["loc"]:
        if isinstance(value, dict) and part in value:
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
        elif details["type"] != "missing" or part != details["loc"][-1]:
            continue
        key.append(part)
    return tuple(key)


def _worded(
    key: KeyPath, group: Sequence[ErrorDetails], places: Mapping[KeyPath, Place]
) -> tuple[str, str]:
    first = group[0]
    context = first.get("ctx", {})
    name = key[-1] if key else ""
    kinds = list(dict.fromkeys(_EXPECTED[e["type"]] for e in group if e["type"] in _EXPECTED))
    if kinds and first["type"] in _EXPECTED:
        hint = ""
        if "a text" in kinds and isinstance(first["input"], int | float):
            hint = "put it in quotes"
        return f"expected {' or '.join(kinds)}, found {shown(first['input'])}", hint
    match first["type"]:
        case "extra_forbidden":
            written = places[key].name if key in places else str(name)
            return f"unknown key `{written}`", _suggestion(key)
        case "not_yet":
            written = places[key].name if key in places else str(name)
            return f"`{written}` {NOT_YET}", "take it out, or set it to false"
        case "missing":
            return f"`{name}` is missing", ""
        case "manifest":
            return str(context["message"]), ""
        case "literal_error":
            return f"expected {context['expected']}, found {shown(first['input'])}", ""
        case "greater_than_equal":
            return f"must be at least {context['ge']}, found {shown(first['input'])}", ""
        case "less_than_equal":
            return f"must be at most {context['le']}, found {shown(first['input'])}", ""
        case "too_short" | "string_too_short":
            return "must not be empty", ""
        case "string_pattern_mismatch":
            message = "letters, digits, dots, dashes and underscores only, a letter first"
            return f"{message}; found {shown(first['input'])}", ""
    return str(first["msg"]), ""


def _suggestion(key: KeyPath) -> str:
    name = str(key[-1])
    model = _model_at(key[:-1])
    known = [*model.model_fields]
    if model is Step:
        known += STEP_ALIASES
    if model is Manifest:
        known += TOP_ALIASES
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close and name not in _BELONGS:
        return f"did you mean `{close[0]}`?"
    moved = difflib.get_close_matches(name, _BELONGS, n=1, cutoff=0.8)
    if moved:
        return _BELONGS[moved[0]]
    if name in Manifest.model_fields:
        return f"`{name}` stands at the top level"
    if name in Step.model_fields:
        return f"`{name}` is a key of a step"
    return f"known keys: {', '.join(sorted(model.model_fields))}"


def _model_at(key: KeyPath) -> type[BaseModel]:
    """The model whose keys stand at a path."""
    model: type[BaseModel] = Manifest
    for part in key:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(part) for part in typing.get_args(annotation))
    return next((model for model in found if model), None)
