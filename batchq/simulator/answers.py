"""Answers that fit a JSON Schema, made from the words of the prompt: same input, same answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

from jsonschema import Draft202012Validator

from batchq.outcome import Json
from batchq.simulator.numbers import draw_integer, draw_number
from batchq.simulator.texts import draw_text, words_of

DEEP = 6
"""Below this depth only what is required is written, so that recursive schemas end."""
TOO_DEEP = 40
TRIES = 20
BRANCHES = ("anyOf", "oneOf")
UNTYPED = (
    ("object", ("properties", "required", "additionalProperties", "minProperties")),
    ("array", ("items", "prefixItems", "minItems", "maxItems")),
    ("number", ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
)


class UnanswerableSchema(ValueError):
    """Raised when no answer for a schema was found; the message says which part is why."""


def answer_text(prompt: str, random: Random) -> str:
    """Writes two or three sentences for a request without a schema."""
    words = words_of(prompt)
    return " ".join(draw_text({}, "", words, random) for _ in range(random.randint(2, 3)))


def answer_json(schema: Mapping[str, Any], prompt: str, random: Random) -> Json:
    """Writes a value that validates against `schema`.

    Raises:
        UnanswerableSchema: if the schema allows nothing, or nothing that was found.
    """
    return _Writer(schema, words_of(prompt), random).write(schema, "", 0)


class _Writer:
    """Writes the parts of one answer."""

    def __init__(self, root: Mapping[str, Any], words: Sequence[str], random: Random) -> None:
        self._root = root
        self._words = words
        self._random = random

    def write(self, schema: Any, name: str, depth: int) -> Json:
        """Writes the value of the property `name`."""
        if depth > TOO_DEEP:
            raise UnanswerableSchema(f"{name or 'the schema'} never ends: it requires itself")
        if schema is True:
            return draw_text({}, name, self._words, self._random)
        if schema is False:
            raise UnanswerableSchema(f"{name or 'the schema'} is false: it allows nothing")
        schema = self._flatten(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choose(schema, name)
        for keyword in BRANCHES:
            if schema.get(keyword):
                return self._write_branch(schema, keyword, name, depth)
        return self._write_typed(schema, self._type_of(schema, depth), name, depth)

    def _flatten(self, schema: Mapping[str, Any], links: int = 0) -> Mapping[str, Any]:
        """Resolves `$ref` and merges `allOf` into one schema."""
        if "$ref" not in schema and "allOf" not in schema:
            return schema
        if links > TOO_DEEP:
            raise UnanswerableSchema("a $ref leads back to itself")
        merged = dict(schema)
        parts: list[Any] = merged.pop("allOf", [])
        if "$ref" in merged:
            parts = [self._resolve(merged.pop("$ref")), *parts]
        for part in parts:
            if part is False:
                raise UnanswerableSchema("allOf has a part that is false: it allows nothing")
            if part is not True:
                merged = _merge(merged, self._flatten(part, links + 1))
        return merged

    def _resolve(self, reference: str) -> Any:
        if not reference.startswith("#"):
            raise UnanswerableSchema(f"$ref {reference!r} leaves the schema: use #/$defs/...")
        target: Any = self._root
        for step in filter(None, reference[1:].split("/")):
            key = step.replace("~1", "/").replace("~0", "~")
            try:
                target = target[int(key)] if isinstance(target, list) else target[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise UnanswerableSchema(f"$ref {reference!r} points at nothing") from None
        return target

    def _choose(self, schema: Mapping[str, Any], name: str) -> Json:
        members = schema["enum"]
        if len(schema) > 2:  # more than the usual `type` beside it: not each member may fit
            members = [member for member in members if self._fits(member, schema)]
        if not members:
            raise UnanswerableSchema(f"{name or 'the schema'}: no member of enum is allowed")
        return self._random.choice(members)

    def _write_branch(self, schema: Mapping[str, Any], keyword: str, name: str, depth: int) -> Json:
        """Takes one branch of anyOf or oneOf; a simple one where it is deep."""
        rest = {key: value for key, value in schema.items() if key != keyword}
        branches = list(schema[keyword])
        self._random.shuffle(branches)
        if depth >= DEEP:
            branches.sort(key=lambda branch: len(json.dumps(branch)))
        else:
            branches.sort(key=lambda branch: branch == {"type": "null"})
        reason: UnanswerableSchema | None = None
        for branch in branches:
            if branch is False:
                continue
            part = rest if branch is True else _merge(rest, self._flatten(branch))
            for _ in range(TRIES if keyword == "oneOf" else 1):
                try:
                    value = self.write(part, name, depth + 1)
                except UnanswerableSchema as error:
                    reason = error
                    break
                if keyword == "anyOf" or self._fits(value, schema):
                    return value
        raise reason or UnanswerableSchema(f"{name or 'the schema'}: {keyword} has no usable part")

    def _fits(self, value: Json, schema: Mapping[str, Any]) -> bool:
        definitions = {
            key: self._root[key] for key in ("$defs", "definitions") if key in self._root
        }
        return Draft202012Validator({**definitions, **schema}).is_valid(value)

    def _type_of(self, schema: Mapping[str, Any], depth: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            if depth >= DEEP and "null" in kind:
                return "null"
            others = [each for each in kind if each != "null"]
            return self._random.choice(others) if others else "null"
        if kind is not None:
            return str(kind)
        for guess, keywords in UNTYPED:
            if any(keyword in schema for keyword in keywords):
                return guess
        return "string"

    def _write_typed(self, schema: Mapping[str, Any], kind: str, name: str, depth: int) -> Json:
        try:
            match kind:
                case "object":
                    return self._write_object(schema, depth)
                case "array":
                    return self._write_array(schema, name, depth)
                case "boolean":
                    return self._random.random() < 0.5
                case "null":
                    return None
                case "integer":
                    return draw_integer(schema, self._random)
                case "number":
                    return draw_number(schema, name, self._random)
                case _:
                    return draw_text(schema, name, self._words, self._random)
        except UnanswerableSchema:
            raise
        except (ValueError, re.error) as error:
            raise UnanswerableSchema(f"{name or 'the schema'}: {error}") from error

    def _write_object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Json]:
        properties: Mapping[str, Any] = schema.get("properties", {})
        required: Sequence[str] = schema.get("required", ())
        least = schema.get("minProperties", 0)
        room = schema.get("maxProperties", len(properties) + len(required) + least) - len(required)
        extra = schema.get("additionalProperties", True)
        value: dict[str, Json] = {}
        for key, part in properties.items():
            if key in required:
                value[key] = self.write(part, key, depth + 1)
            elif room > 0 and depth < DEEP and part is not False:
                room -= 1
                value[key] = self.write(part, key, depth + 1)
        for key in self._more_keys(required, properties, least):
            if key not in value and (key in required or len(value) < least):
                part = properties.get(key, extra)
                value[key] = self.write(part, key, depth + 1)
        return value

    @staticmethod
    def _more_keys(
        required: Sequence[str], properties: Mapping[str, Any], least: int
    ) -> Iterable[str]:
        yield from required
        yield from properties
        for number in range(1, least + 1):
            yield f"extra_{number}"

    def _write_array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Json]:
        first: Sequence[Any] = schema.get("prefixItems", ())
        items = schema.get("items", True)
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", max(least, len(first)) + 3)
        usual = len(first) if items is False else max(least, len(first), 1)
        spread = 0 if items is False or depth >= DEEP else self._random.randint(0, 2)
        length = max(least, min(most, least if depth >= DEEP else usual + spread))
        is_unique = bool(schema.get("uniqueItems"))
        value: list[Json] = []
        seen: set[str] = set()
        tries = TRIES * (length + 1)
        while len(value) < length and tries:
            tries -= 1
            part = first[len(value)] if len(value) < len(first) else items
            member = self.write(part, name.removesuffix("s"), depth + 1)
            mark = json.dumps(_canonical(member), sort_keys=True) if is_unique else ""
            if is_unique and mark in seen:
                continue
            seen.add(mark)
            value.append(member)
        if len(value) < least:
            raise UnanswerableSchema(f"{name or 'the schema'}: no {least} different items found")
        return value


def _canonical(value: Json) -> Json:
    """Makes numbers that JSON Schema holds for equal (1 and 1.0) look equal."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_canonical(member) for member in value]
    if isinstance(value, dict):
        return {key: _canonical(member) for key, member in value.items()}
    return value


def _merge(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Joins two schemas that a value must both fit, keyword by keyword."""
    merged = dict(one)
    for key, value in other.items():
        if key not in merged or merged[key] == value:
            merged[key] = value
        else:
            merged[key] = _merge_keyword(key, merged[key], value)
    return merged


def _merge_keyword(key: str, one: Any, other: Any) -> Any:
    match key:
        case "properties":
            both = {name: {"allOf": [one[name], other[name]]} for name in one if name in other}
            return {**one, **other, **both}
        case "required":
            return list(dict.fromkeys([*one, *other]))
        case "enum":
            return [member for member in one if member in other]
        case "type":
            return _common_types(one, other)
        case "minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties":
            return max(one, other)
        case "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties":
            return min(one, other)
        case "additionalProperties":
            return one if other is True else other
    return other


def _common_types(one: Any, other: Any) -> Any:
    firsts = one if isinstance(one, list) else [one]
    seconds = other if isinstance(other, list) else [other]
    common = [kind for kind in firsts if kind in seconds]
    if {"number", "integer"} <= {*firsts, *seconds} and "integer" not in common:
        common.append("integer")
    if not common:
        raise UnanswerableSchema(f"nothing is both {one} and {other}")
    return common if len(common) > 1 else common[0]
