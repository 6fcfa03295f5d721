"""JSON Schemas of answers: checked once when a manifest is loaded, compiled once a process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from batchq.errors import PlanError
from batchq.outcome import Json

_Unknown: Any = object()

MAX_ERRORS = 10
_MAX_MESSAGE = 300  # the validator quotes the whole value, which may be megabytes
_DATA_KEYWORDS = frozenset({"const", "default", "enum", "example", "examples"})


def check_schema(schema: Any) -> list[str]:
    """Lists what is wrong with a schema, in words for its author; empty if it can be used.

    A `$ref` must point into the schema itself: nothing is ever fetched from the network.
    """
    if not isinstance(schema, Mapping | bool):
        return [f"a JSON Schema is an object, not {type(schema).__name__}"]
    dialect = schema.get("$schema", "") if isinstance(schema, Mapping) else ""
    if dialect and not _is_known(dialect):
        return [f"$.$schema: {dialect!r} is not a known draft of JSON Schema"]
    kind = validator_for(schema, default=Draft202012Validator)
    found = kind(kind.META_SCHEMA).iter_errors(schema)
    errors = [_worded(error) for error in islice(found, MAX_ERRORS)]
    if errors:
        return errors
    validator = _validator(schema)
    return _reference_errors(validator, schema)


def compile_schema(schema: Mapping[str, Any]) -> Validator:
    """Returns the schema's validator, compiled once a process.

    Drafts are taken from `$schema`, 2020-12 without it; `format` is an annotation, as that draft
    has it. Raises PlanError if the schema itself is wrong.
    """
    return _compile(json.dumps(schema))


@lru_cache(maxsize=256)
def _compile(text: str) -> Validator:
    schema = json.loads(text)
    errors = check_schema(schema)
    if errors:
        raise PlanError("output_schema is not a valid JSON Schema: " + "; ".join(errors))
    return _validator(schema)


def mismatches(value: Json, schema: Mapping[str, Any]) -> list[str]:
    """Lists where a value does not match, at most 10 places, each as `$.path: what is wrong`."""
    try:
        return [_worded(e) for e in islice(compile_schema(schema).iter_errors(value), MAX_ERRORS)]
    except RecursionError:
        return ["$: the value is nested too deeply to be checked"]


def _is_known(dialect: Any) -> bool:
    if not isinstance(dialect, str):
        return False
    # Only an unknown dialect falls back to the default, which no dialect stands for.
    return validator_for({"$schema": dialect}, default=_Unknown) is not _Unknown


def _validator(schema: Any) -> Validator:
    kind = validator_for(schema, default=Draft202012Validator)
    return kind(schema, registry=Registry())  # an empty registry: no remote references


def _worded(error: ValidationError) -> str:
    """Says what is wrong and where; of alternatives, what the nearest one lacks."""
    while error.context:
        error = min(error.context, key=_distance)
    message = error.message
    if len(message) > _MAX_MESSAGE:
        half = _MAX_MESSAGE // 2
        message = f"{message[:half]} ... {message[-half:]}"
    return f"{error.json_path}: {message}"


def _distance(error: ValidationError) -> tuple[int, bool]:
    """Orders the failures of `anyOf` and `oneOf`: the deepest, and not for its type, is nearest."""
    return -len(error.path), error.validator == "type"


def _reference_errors(validator: Validator, schema: Any) -> list[str]:
    """Follows each `$ref` once, on a value that needs no more: references are resolved lazily."""
    errors: list[str] = []
    for reference in dict.fromkeys(_references(schema)):
        try:
            validator.evolve(schema={"$ref": reference}).is_valid(None)
        except Unresolvable:
            errors.append(f"$ref {reference!r} points to nothing in this schema")
        except RecursionError:
            errors.append(f"$ref {reference!r} leads back to itself without end")
    return errors[:MAX_ERRORS]


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for key, part in schema.items():
            if key == "$ref" and isinstance(part, str):
                yield part
            elif key not in _DATA_KEYWORDS:
                yield from _references(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _references(part)
