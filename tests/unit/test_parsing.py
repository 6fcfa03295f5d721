from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchq.errors import NotJson, OutputError, SchemaMismatch
from batchq.text.parsing import MAX_DEPTH, parse_answer, parse_loose

THEME = {
    "type": "object",
    "properties": {"theme": {"enum": ["care", "work"]}, "score": {"type": "number"}},
    "required": ["theme"],
}
GOOD = {"theme": "care", "score": 0.5}
GOOD_TEXT = json.dumps(GOOD)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
finite = scalars.filter(lambda value: value not in (float("inf"), float("-inf")))
values = st.recursive(
    finite,
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
    max_leaves=8,
)


@given(values)
def test_what_json_writes_is_read_back_unrepaired(value):
    parsed = parse_answer(json.dumps(value), None)

    assert parsed.value == value
    assert not parsed.repaired


@given(st.text(), st.booleans())
@example("[" * 5000, False)
@example('{"a":' * 5000, False)
@example('{"a": [1, 2', True)
@example("\ud800", False)
@example('{"a": 1e999}', False)
def test_any_text_is_json_or_an_output_error(text, truncated):
    with contextlib.suppress(OutputError):
        value = parse_answer(text, None, truncated=truncated).value

        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "text",
    [
        GOOD_TEXT,
        f"\ufeff {GOOD_TEXT}\n",
        f"```json\n{GOOD_TEXT}\n```",
        f"```\n{GOOD_TEXT}\n```",
        f"Sure! Here it is:\n```json\n{GOOD_TEXT}\n```\nAnything else?",
        f"The answer is {GOOD_TEXT}, I think.",
        f"As {{name}} says [see 1]: {GOOD_TEXT} [2]",
        f'My first idea: {{"theme": "work"}}. No: {GOOD_TEXT}',
        f'<think>maybe {{"theme": </think>{GOOD_TEXT}',
        '{"theme": "work", "theme": "care", "score": 0.5}',
    ],
)
def test_json_is_found_wherever_models_put_it(text):
    parsed = parse_answer(text, THEME)

    assert parsed.value == GOOD
    assert not parsed.repaired


@pytest.mark.parametrize(
    "text",
    [
        "{'theme': 'care', 'score': 0.5}",
        '{theme: "care", score: 0.5}',
        '{"theme": "care", "score": 0.5,}',
        '```json\n{"theme": "care" "score": 0.5}\n```',
        '{"theme": "care", "score": 0.5',
    ],
)
def test_broken_json_is_repaired_and_flagged(text):
    parsed = parse_answer(text, THEME)

    assert parsed.value == GOOD
    assert parsed.repaired


def test_a_truncated_answer_is_not_repaired():
    with pytest.raises(NotJson, match="cut off"):
        parse_answer('{"theme": "care", "score": 0.', THEME, truncated=True)


def test_a_part_of_a_broken_value_does_not_pass_for_the_answer():
    text = '{"themes": [{"theme": "care"}, {"theme": "work"}'

    with pytest.raises(NotJson):
        parse_answer(text, THEME, truncated=True)


@pytest.mark.parametrize(
    "text", ["", "  \n", "I cannot help with that.", "theme: care", "NaN", '{"a": NaN', "[[[[["]
)
def test_where_there_is_no_json_the_model_is_told(text):
    with pytest.raises(NotJson) as caught:
        parse_answer(text, THEME)

    assert "valid JSON" in caught.value.detail


@pytest.mark.parametrize("text", ['{"a": NaN}', "[Infinity]", '{"a": 1e999}'])
def test_numbers_that_json_does_not_have_are_rejected(text):
    with pytest.raises(NotJson):
        parse_answer(text, None)


def test_a_nesting_bomb_is_refused():
    depth = MAX_DEPTH + 1

    with pytest.raises(NotJson, match="deeper"):
        parse_answer("[" * depth + "]" * depth, None)
    with pytest.raises(NotJson):
        parse_answer('{"a":' * 100_000, None)


@pytest.mark.parametrize(
    ("text", "value"), [("42", 42), ('"yes"', "yes"), ("```\ntrue\n```", True)]
)
def test_scalars_are_json(text, value):
    assert parse_answer(text, {"enum": [42, "yes", True]}).value == value


def test_lone_surrogates_become_replacement_characters():
    assert parse_answer(r'{"a": "x\ud800y"}', None).value == {"a": "x\ufffdy"}


def test_a_mismatch_tells_the_model_where_and_what():
    with pytest.raises(SchemaMismatch) as caught:
        parse_answer('{"theme": "sport", "score": "high"}', THEME)

    assert "$.theme: 'sport' is not one of ['care', 'work']" in caught.value.detail
    assert "$.score: 'high' is not of type 'number'" in caught.value.detail
    assert "$.theme" in str(caught.value)


def test_a_code_fence_inside_a_string_does_not_cut_the_answer():
    value = {"code": "```python\nprint({})\n```"}

    assert parse_answer(f"```json\n{json.dumps(value, indent=1)}\n```", None).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (GOOD_TEXT, GOOD),
        (f"```json\n{GOOD_TEXT}\n```\n", GOOD),
        ("[1, 2]", [1, 2]),
        ("42", "42"),
        ('"yes"', '"yes"'),
        ("plain words", "plain words"),
        (f"prose {GOOD_TEXT}", f"prose {GOOD_TEXT}"),
        ("[NaN]", "[NaN]"),
        ("x\ud800", "x\ufffd"),
        ("", ""),
    ],
)
def test_without_a_schema_only_a_whole_json_answer_is_json(text, value):
    assert parse_loose(text) == value
