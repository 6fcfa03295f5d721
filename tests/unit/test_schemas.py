from __future__ import annotations

import pytest

from batchq.errors import PlanError
from batchq.text.schemas import MAX_ERRORS, check_schema, compile_schema, mismatches


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"node": {"$ref": "#"}}},
        {"$defs": {"n": {"properties": {"k": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}},
        {"properties": {"$ref": {"type": "string"}}},
        {"enum": [{"$ref": "#/nowhere"}]},
    ],
)
def test_a_good_schema_has_no_errors(schema):
    assert check_schema(schema) == []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ([1], "an object"),
        ({"type": "objct"}, "$.type: 'objct'"),
        ({"$schema": "http://nope.example"}, "not a known draft"),
        ({"$schema": 7}, "not a known draft"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "points to nothing"),
        ({"properties": {"a": {"$ref": "https://example.com/schema.json"}}}, "points to nothing"),
        ({"$ref": "#"}, "without end"),
    ],
)
def test_a_bad_schema_is_described(schema, words):
    errors = check_schema(schema)

    assert len(errors) == 1
    assert words in errors[0]


def test_equal_schemas_are_compiled_once():
    one = compile_schema({"type": "object", "required": ["a"]})
    other = compile_schema({"type": "object", "required": ["a"]})

    assert one is other


def test_a_bad_schema_cannot_be_compiled():
    with pytest.raises(PlanError, match="objct"):
        compile_schema({"type": "objct"})


def test_the_draft_is_taken_from_the_schema():
    items = [{"type": "string"}]
    draft_7 = {"$schema": "http://json-schema.org/draft-07/schema#", "items": items}

    assert mismatches([1], draft_7) == ["$[0]: 1 is not of type 'string'"]


def test_mismatches_name_the_path_and_are_bounded():
    schema = {"items": {"type": "object", "properties": {"a": {"type": "string"}}}}

    errors = mismatches([{"a": 1}] * 50, schema)

    assert errors[0] == "$[0].a: 1 is not of type 'string'"
    assert len(errors) == MAX_ERRORS


def test_a_huge_value_is_not_quoted_in_full():
    (error,) = mismatches("x" * 100_000, {"type": "integer"})

    assert len(error) < 400
    assert error.endswith("is not of type 'integer'")


def test_of_alternatives_the_nearest_is_explained():
    person = {"type": "object", "properties": {"age": {"type": "integer"}}}

    (error,) = mismatches({"age": "ten"}, {"anyOf": [{"type": "null"}, person]})

    assert error == "$.age: 'ten' is not of type 'integer'"


def test_a_remote_reference_is_never_fetched():
    with pytest.raises(PlanError, match="points to nothing"):
        mismatches({}, {"$ref": "http://127.0.0.1:9/schema.json"})
