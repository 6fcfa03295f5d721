"""Resolves what is known when planning: `${params.x}`, `${env:NAME}`, `${env:NAME:-default}`."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from batchq.manifest.scalars import shown

Report = Callable[[tuple[str | int, ...], str, str], None]
"""Takes a key's path, what is wrong there, and a hint."""

_PLACEHOLDER = re.compile(r"\$?\$\{([^{}]*)\}")
_PARAM = re.compile(r"params\.(\w+)")
_ENV = re.compile(r"env:([A-Za-z_]\w*)(?::-(.*))?", re.DOTALL)
_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS)$", re.IGNORECASE)
_TYPES: Mapping[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "list": list}
_WORDS = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false",
          "list": "a list"}  # fmt: skip
_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_HOW = "write ${params.NAME}, ${env:NAME} or ${env:NAME:-default}; $${...} stands for itself"


class UnknownPlaceholder(ValueError):
    """Raised for a `${...}` that has no value; `hint` says what to write."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


def value_of(name: str, params: Mapping[str, Any], env: Mapping[str, str]) -> Any:
    """The value of what stands between `${` and `}`; raises UnknownPlaceholder."""
    if match := _PARAM.fullmatch(name):
        if match[1] in params:
            return params[match[1]]
        near = difflib.get_close_matches(match[1], params, n=1)
        known = ", ".join(params) or "none"
        hint = f"did you mean `params.{near[0]}`?" if near else f"declared params: {known}"
        raise UnknownPlaceholder(f"`${{{name}}}`: no such param", hint)
    if match := _ENV.fullmatch(name):
        if _SECRET.search(match[1]):
            raise UnknownPlaceholder(
                f"`${{{name}}}` looks like a secret, which would end up in the plan",
                f"name it under a provider: api_key_env: {match[1]}",
            )
        if match[1] in env:
            return env[match[1]]
        if match[2] is not None:
            return match[2]
        raise UnknownPlaceholder(
            f"the environment variable {match[1]} is not set",
            f"set it, or write ${{env:{match[1]}:-default}}",
        )
    raise UnknownPlaceholder(f"`${{{name}}}` is no placeholder", _HOW)


def resolve(
    data: Any, params: Mapping[str, Any], env: Mapping[str, str], report: Report,
    key: tuple[str | int, ...] = (),
) -> Any:  # fmt: skip
    """Fills every `${...}` in a tree of values; one that is a whole value keeps its type.

    `api_key_env` is left alone: it names a variable whose value nobody here may see.
    """
    if isinstance(data, dict):
        return {name: resolve(value, params, env, report, (*key, name))
                for name, value in data.items()}  # fmt: skip
    if isinstance(data, list):
        return [resolve(value, params, env, report, (*key, at)) for at, value in enumerate(data)]
    if not isinstance(data, str) or "${" not in data or (key and key[-1] == "api_key_env"):
        return data
    whole = _PLACEHOLDER.fullmatch(data)

    def fill(match: re.Match[str]) -> Any:
        if match[0].startswith("$$"):
            return match[0][1:]
        try:
            return value_of(match[1], params, env)
        except UnknownPlaceholder as error:
            report(key, str(error), error.hint)
            return "" if not whole else None

    if whole:
        return fill(whole)
    return _PLACEHOLDER.sub(lambda match: _text(fill(match)), data)


def resolve_text(text: str, params: Mapping[str, Any], env: Mapping[str, str]) -> str:
    """Fills `${params.x}` and `${env:NAME}` in a prompt; other `${...}` are none of ours there.

    Raises:
        UnknownPlaceholder: a param or variable that does not exist.
    """

    def fill(match: re.Match[str]) -> str:
        if not match[1].startswith(("params.", "env:")):
            return match[0]
        return match[0][1:] if match[0].startswith("$$") else _text(value_of(match[1], params, env))

    return _PLACEHOLDER.sub(fill, text)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def bind(declared: Any, given: Mapping[str, str], report: Report) -> dict[str, Any]:
    """The values of the params: what was given with -p, else their defaults."""
    params = declared if isinstance(declared, dict) else {}
    for name in given:
        if name not in params:
            near = difflib.get_close_matches(name, params, n=1)
            known = ", ".join(params) or "none"
            hint = f"did you mean `{near[0]}`?" if near else f"declared params: {known}"
            report(("params",), f"-p {name}: no such param", hint)
    return {name: _bound(name, spec, given, report) for name, spec in params.items()}


def _bound(name: str, spec: Any, given: Mapping[str, str], report: Report) -> Any:
    key = ("params", name)
    is_full = isinstance(spec, dict)
    default = spec.get("default") if is_full else spec
    kind = (spec.get("type") if is_full else None) or _type_name(default)
    if kind not in _TYPES:
        return default  # a wrong type, which the model reports
    value: Any = default
    if name in given:
        try:
            value = _read(given[name], kind)
        except ValueError:
            report(key, f"-p {name}: expected {_WORDS[kind]}, found {shown(given[name])}", "")
            return default
    elif default is None:
        report(key, "needs a value", f"give one with -p {name}=VALUE, or a `default`")
        return None
    elif not _has_type(default, kind):
        report(key, f"the default must be {_WORDS[kind]}, found {shown(default)}", "")
        return default
    if is_full and not _is_allowed(key, spec, value, report) and default is not None:
        value = default  # so that what follows from it is not told as well
    return float(value) if kind == "float" else value


def _is_allowed(key: tuple[str, str], spec: Mapping[str, Any], value: Any, report: Report) -> bool:
    choices = spec.get("choices")
    if isinstance(choices, list) and value not in choices:
        listed = ", ".join(map(_text, choices))
        report(key, f"{shown(value)} is not one of its choices", f"choices: {listed}")
        return False
    bounds = (spec.get("min"), spec.get("max"))  # one of a wrong type is for the model to report
    low, high = (bound if _has_type(bound, "float") else None for bound in bounds)
    if low is None and high is None:
        return True
    if not _has_type(value, "float"):
        report(key, f"`min` and `max` are for numbers, this is {shown(value)}", "")
        return False
    if (low is None or value >= low) and (high is None or value <= high):
        return True
    words = [f"at least {low:g}"] if low is not None else []
    words += [f"at most {high:g}"] if high is not None else []
    report(key, f"{shown(value)} is out of bounds", " and ".join(words))
    return False


def _type_name(value: Any) -> str:
    return next(
        (name for name in ("bool", "int", "float", "list") if _has_type(value, name)), "str"
    )


def _has_type(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "bool"
    return isinstance(value, int | float) if kind == "float" else isinstance(value, _TYPES[kind])


def _read(text: str, kind: str) -> Any:
    if kind == "bool":
        if text.lower() not in _BOOLS:
            raise ValueError(text)
        return _BOOLS[text.lower()]
    if kind == "list":
        if text.lstrip().startswith("["):
            value = json.loads(text)
            if not isinstance(value, list):
                raise ValueError(text)
            return value
        return [part.strip() for part in text.split(",") if part.strip()]
    value = {"int": int, "float": float, "str": str}[kind](text)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(text)  # JSON cannot say it
    return value
