from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from batchq.simulator.answers import UnanswerableSchema, answer_json, answer_text

PROMPT = "Summarise how the tokenizer module reads source files of Python programs."


def answer(schema: dict[str, Any], seed: int = 1, prompt: str = PROMPT) -> Any:
    Draft202012Validator.check_schema(schema)
    return answer_json(schema, prompt, Random(seed))


def is_valid(schema: dict[str, Any], value: object) -> bool:
    return Draft202012Validator(schema).is_valid(value)


def spans(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high)).map(
        lambda pair: (min(pair), max(pair))
    )


LEAVES = st.one_of(
    st.sampled_from(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"const": {"a": [1]}},
            {"enum": ["red", 2, None]},
            {"type": ["string", "null"]},
            {"type": "string", "pattern": "^[A-Z]{2}-\\d{3,}$"},
            {"type": "string", "pattern": "^(yes|no)( [^ ]+)?$", "minLength": 4},
            {"type": "string", "format": "date-time"},
            {"type": "number", "multipleOf": 0.1, "minimum": 0, "maximum": 3},
            {"$ref": "#/$defs/tree"},
        ]
    ),
    spans(0, 60).map(lambda s: {"type": "string", "minLength": s[0], "maxLength": s[1]}),
    spans(-50, 50).map(lambda s: {"type": "integer", "minimum": s[0], "maximum": s[1]}),
    spans(-5, 5).map(lambda s: {"type": "number", "exclusiveMinimum": s[0], "maximum": s[1] + 1}),
    st.integers(2, 9).map(lambda n: {"type": "integer", "multipleOf": n, "minimum": -n}),
    spans(-90, 0).map(lambda s: {"type": "number", "maximum": s[1]}),
)


def composed(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    objects = st.dictionaries(st.sampled_from("abcd"), inner, max_size=3).flatmap(
        lambda parts: st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.just(parts),
                "required": st.lists(st.sampled_from([*parts, "z"]), unique=True),
            }
        )
    )
    arrays = st.builds(
        lambda items, span: {
            "type": "array",
            "items": items,
            "minItems": span[0],
            "maxItems": span[1],
        },
        inner,
        spans(0, 4),
    )
    unions = st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts})
    conjunctions = inner.map(lambda part: {"allOf": [part, {"description": "same"}]})
    return st.one_of(objects, arrays, unions, conjunctions)


TREE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
        "next": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]},
    },
    "required": ["name", "children", "next"],
    "additionalProperties": False,
}


@settings(max_examples=150, deadline=None)
@given(part=st.recursive(LEAVES, composed, max_leaves=6), seed=st.integers(0, 2**63))
def test_an_answer_validates_against_its_schema_and_is_the_same_again(
    part: dict[str, Any], seed: int
) -> None:
    schema = {**part, "$defs": {"tree": TREE}}

    value = answer(schema, seed)

    Draft202012Validator(schema).validate(value)
    assert answer(schema, seed) == value


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 2}]},
        {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3},
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "items": False},
        {"type": "object", "minProperties": 2, "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {"a": True, "b": True}, "maxProperties": 1},
        {"type": ["integer", "string"], "enum": [1.5, "a", 3], "minimum": 2},
        {"allOf": [{"type": "number"}, {"type": "integer"}, {"minimum": 7}, {"maximum": 9}]},
        {"minimum": 3, "exclusiveMaximum": 4},
        {"properties": {"x": {"type": "string", "format": "uuid"}}, "required": ["x"]},
        {"type": "string", "pattern": "(a|b)\\1{2}"},
        {"type": "string", "pattern": "^[^a-zA-Z]{3}$"},
    ],
)
def test_rarer_keywords_are_kept_too(schema: dict[str, Any], seed: int) -> None:
    value = answer(schema, seed)

    assert is_valid(schema, value), value


def test_a_confidence_without_bounds_is_a_share() -> None:
    schema = {"type": "object", "properties": {"confidence": {"type": "number"}}}

    values = [answer(schema, seed)["confidence"] for seed in range(50)]

    assert all(0 <= value <= 1 for value in values)
    assert len(set(values)) > 10


def test_a_sentence_is_made_of_the_words_of_the_prompt() -> None:
    text = answer({"type": "string"})

    assert text.endswith(".")
    assert set(text.removesuffix(".").split()) & set(PROMPT.removesuffix(".").split())


def test_another_prompt_or_seed_gives_another_answer() -> None:
    texts = {
        answer_text(prompt, Random(seed)) for prompt in (PROMPT, "Other text") for seed in (1, 2)
    }

    assert len(texts) == 4


def test_an_empty_prompt_is_answered() -> None:
    assert answer_text("", Random(1))


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no whole number"),
        ({"type": "number", "exclusiveMinimum": 3, "exclusiveMaximum": 3}, "no number"),
        ({"$ref": "#/$defs/gone"}, "points at nothing"),
        ({"$ref": "https://example.org/s.json"}, "leaves the schema"),
        ({"$ref": "#"}, "back to itself"),
        ({"enum": [1, 2], "type": "string", "minLength": 1}, "no member of enum"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "nothing is both"),
        ({"type": "string", "pattern": "^a$", "minLength": 2}, "no text was found"),
        ({"type": "array", "items": {"const": 1}, "uniqueItems": True, "minItems": 2}, "different"),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "allows nothing"),
    ],
)
def test_a_schema_that_allows_nothing_is_refused_with_the_reason(
    schema: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnanswerableSchema, match=reason):
        answer(schema)


def test_a_type_that_requires_itself_is_refused_instead_of_written_for_ever() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}

    with pytest.raises(UnanswerableSchema, match="never ends"):
        answer(node)
