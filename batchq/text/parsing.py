"""From the text of an answer to JSON that matches its schema, or to words the model can use."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from batchq.errors import NotJson, OutputError, SchemaMismatch
from batchq.outcome import Json

MAX_DEPTH = 100
"""Deeper nesting is refused: it would exhaust the stack of whoever walks the value next."""

_MAX_STARTS = 200  # brackets looked at in prose: each may cost a pass over the rest of the text
_MAX_REPAIR_CHARACTERS = 200_000  # json-repair is slow and not linear
_THINKING = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_ONE_FENCE = re.compile(r"\A\s*```[\w+-]*[ \t]*\n(.*)\n[ \t]*```\s*\Z", re.DOTALL)
_BRACKET = re.compile(r"[\[{]")
_LOOKS_LIKE_JSON = re.compile(r"""\{\s*(?:["'}]|\w+\s*:)|\[\s*[\[{"']""")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Parsed:
    """An answer's JSON, and whether it had to be repaired before it could be read."""

    value: Json
    repaired: bool = False


def parse_answer(text: str, schema: Mapping[str, Any] | None, *, truncated: bool = False) -> Parsed:
    """Finds the JSON in an answer, in prose or a code fence too, and checks it by the schema.

    Of several JSON values the last one that matches counts, since models think first and answer
    then. What cannot be read is repaired and flagged, unless the answer is `truncated`: a repair
    would make up the missing end. Raises NotJson or SchemaMismatch.
    """
    try:
        return _parse(text, schema, truncated=truncated)
    except _NotFinite as error:
        _fail(text, str(error))


def _parse(text: str, schema: Mapping[str, Any] | None, *, truncated: bool) -> Parsed:
    body = _THINKING.sub("", text.lstrip("\ufeff"), count=1)
    fence = _ONE_FENCE.match(body)
    for whole in (body, fence.group(1)) if fence else (body,):
        value = _read(whole)
        if value is not _NOTHING:
            return _checked([Parsed(_sound(value, text))], schema, text)
    found = _search(body)
    candidates = [Parsed(_sound(value, text)) for value in reversed(found.values)]
    if found.broken_at is not None or not candidates:
        if truncated:
            _fail(text, "the answer was cut off before its JSON ended")
        repaired = _repair(body, found.broken_at)
        if repaired is not _NOTHING:
            candidates.insert(0, Parsed(_sound(repaired, text), repaired=True))
    if not candidates:
        _fail(text, _why_not_json(body))
    return _checked(candidates, schema, text)


def parse_loose(text: str) -> Json:
    """Reads an answer that may be JSON: one object or array, bare or in one code fence.

    Anything else is returned as the text it is, a number or a quoted word as well.
    """
    fence = _ONE_FENCE.match(text)
    try:
        value = _read(fence.group(1) if fence else text)
        if isinstance(value, dict | list):
            return _sound(value, text)
    except (_NotFinite, OutputError):
        pass  # what JSON cannot carry, such as NaN, stays text
    return _SURROGATE.sub("\ufffd", text)


class _NotFinite(ValueError):
    """Raised for NaN, Infinity and 1e999: a repair would turn them into words."""


class _Nothing:
    """Stands for "no JSON here", which None cannot: `null` is JSON."""


_NOTHING = _Nothing()


@dataclass(frozen=True, slots=True)
class _Found:
    values: list[Json]
    broken_at: int | None  # where something begins that was meant to be JSON but does not parse


def _reject_constant(name: str) -> NoReturn:
    raise _NotFinite(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _NotFinite(f"{digits} is too large for a JSON number")
    return number


# strict=False takes line breaks inside strings, which models write and which lose nothing.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_reject_constant, parse_float=_finite)


def _read(text: str) -> Json | _Nothing:
    try:
        return _DECODER.decode(text)
    except _NotFinite:
        raise
    except (ValueError, RecursionError):
        return _NOTHING


def _search(text: str) -> _Found:
    """Collects the objects and arrays that stand in prose, up to the first broken one.

    The parts of a broken value are not looked at: one of them would pass for the answer.
    """
    values: list[Json] = []
    position = 0
    for _ in range(_MAX_STARTS):
        start = _BRACKET.search(text, position)
        if start is None:
            break
        try:
            value, position = _DECODER.raw_decode(text, start.start())
            values.append(value)
        except _NotFinite:
            raise
        except (ValueError, RecursionError):
            if _LOOKS_LIKE_JSON.match(text, start.start()):
                return _Found(values, start.start())
            position = start.end()
    return _Found(values, None)


def _repair(text: str, start: int | None) -> Json | _Nothing:
    """Mends an object or array; nothing if there is none, as in a refusal."""
    if start is None:
        bracket = _BRACKET.search(text)
        start = bracket.start() if bracket else len(text)
    broken = text[start:]
    if not broken or len(broken) > _MAX_REPAIR_CHARACTERS:
        return _NOTHING
    import json_repair  # rarely needed, and slow to import

    try:
        value = json_repair.loads(broken, skip_json_loads=True)
    except (ValueError, RecursionError):
        return _NOTHING
    return value if isinstance(value, dict | list) and value else _NOTHING


def _sound(value: Json, raw: str) -> Json:
    """Checks depth and numbers, and replaces lone surrogates, which UTF-8 cannot carry."""
    try:
        return _clean(value, MAX_DEPTH)
    except ValueError as error:
        _fail(raw, str(error))


def _clean(value: Json, depth: int) -> Json:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number")
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        raise ValueError(f"the JSON is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, list):
        return [_clean(part, depth - 1) for part in value]
    return {_clean(key, depth): _clean(part, depth - 1) for key, part in value.items()}


def _checked(candidates: list[Parsed], schema: Mapping[str, Any] | None, raw: str) -> Parsed:
    """Returns the first candidate that matches, or says what is wrong with the largest."""
    if schema is None:
        return max(candidates, key=_size)
    from batchq.text.schemas import mismatches  # jsonschema takes 0.15 s to import

    for candidate in candidates:
        if not mismatches(candidate.value, schema):
            return candidate
    errors = mismatches(max(candidates, key=_size).value, schema)
    message = f"the answer does not match output_schema: {errors[0]}"
    if len(errors) > 1:
        message += f" (and {len(errors) - 1} more)"
    detail = "the JSON does not match the schema.\n" + "\n".join(f"- {error}" for error in errors)
    raise SchemaMismatch(message, detail=detail, raw=raw)


def _size(candidate: Parsed) -> int:
    return sum(1 for _ in _leaves(candidate.value))


def _leaves(value: Json) -> Iterator[Json]:
    if isinstance(value, dict):
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _why_not_json(text: str) -> str:
    if not text.strip():
        return "the answer is empty"
    if not _BRACKET.search(text):
        return "there is no JSON in the answer"
    try:
        _DECODER.decode(text)
    except RecursionError:
        return f"the JSON is nested deeper than {MAX_DEPTH} levels"
    except ValueError as error:
        return f"the JSON cannot be read: {error}"
    return "there is no JSON in the answer"


def _fail(raw: str, why: str) -> NoReturn:
    detail = f"{why}. Answer with valid JSON and nothing else."
    raise NotJson(why, detail=detail, raw=raw)
