from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.errors import TaskError
from batchq.text.prompts import flatten, names, render

ITEM = {
    "id": "4001",
    "goal": {"verb": "create", "tiers": ["baseline", "é"]},
    "n": 3,
    "flag": True,
    "none": None,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_characters="{}")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{id} {goal__verb}", "4001 create"),
        ("{goal__tiers} {n} {flag} {none}", '["baseline", "é"] 3 true null'),
        ("{goal}", '{"verb": "create", "tiers": ["baseline", "é"]}'),
        ('{"a": {"b": {"c": 1}}}', '{"a": {"b": {"c": 1}}}'),
        ('{"id": {id}}', '{"id": 4001}'),
        ("{{id}}", "{id}"),
        ("{{{id}}}", "{4001}"),
        ('{{"a": {{"b": {n}}}}}', '{"a": {"b": 3}}'),
        ("} }} { {} { id } {1} {a-b}", "} }} { {} { id } {1} {a-b}"),
        ("$ {n} ${n}", "$ 3 $3"),
    ],
)
def test_fields_are_filled_and_other_braces_stay(template: str, expected: str) -> None:
    assert render(template, ITEM, is_jinja=False) == expected


@given(value=JSON)
def test_any_json_in_a_prompt_survives(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False)
    compact = json.dumps(value, separators=(",", ":"))

    assert render(f"like {text} or {compact}", {}, is_jinja=False) == f"like {text} or {compact}"


@given(value=st.text())
def test_a_value_is_never_expanded_again(value: str) -> None:
    data = {"a": value, "b": "x"}

    assert render("{a}", data, is_jinja=False) == value
    assert render("{{ a }}", data, is_jinja=True) == value


@given(template=st.text("{}ab \n\"'", max_size=40))
def test_any_template_renders_or_names_a_missing_field(template: str) -> None:
    try:
        render(template, {"a": 1}, is_jinja=False)
    except TaskError as error:
        assert error.kind == "prompt"  # noqa: PT017 (either is right)
        assert set(names(template)) - {"a", "item"}
    else:
        assert set(names(template)) <= {"a", "item"}


def test_a_missing_field_lists_those_there_are_nearest_first() -> None:
    with pytest.raises(TaskError) as caught:
        render("{goal__vreb}", ITEM, is_jinja=False)

    assert caught.value.kind == "prompt"
    assert str(caught.value).startswith("the item has no field `goal__vreb`; it has: goal__verb, ")
    assert "flag" in str(caught.value)


def test_an_item_that_is_no_mapping_is_called_item() -> None:
    assert render("{item}", "plain", is_jinja=False) == "plain"
    assert render("{item}", [1, {"a": 2}], is_jinja=False) == '[1, {"a": 2}]'


def test_a_field_that_is_called_item_wins() -> None:
    assert render("{item}", {"item": "mine"}, is_jinja=False) == "mine"


def test_a_literal_field_wins_over_a_nested_one() -> None:
    assert flatten({"a": {"b": 1}, "a__b": 2})["a__b"] == 2
    assert flatten({"a__b": 2, "a": {"b": 1}})["a__b"] == 2


def test_jinja_loops_over_nested_values_and_writes_json() -> None:
    template = "{% for t in goal.tiers %}[{{ t }}]{% endfor %} {{ goal }} {{ goal__verb|tojson }}"

    text = render(template, ITEM, is_jinja=True)

    assert text == '[baseline][é] {"verb": "create", "tiers": ["baseline", "é"]} "create"'


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ nope }}", "the item has no field `nope`; it has: "),
        ("{{ goal.nope }}", "has no attribute 'nope'"),
        ("{% if %}", "template line 1: "),
        ("{{ n / 0 }}", "template: division by zero"),
        ("{{ ''.__class__.__mro__ }}", "template: "),
        ("{% for a in range(999999999) %}{% endfor %}", "template: Range too big"),
        ("{% include 'x' %}", "template: "),
    ],
)
def test_a_jinja_template_that_fails_says_why(template: str, expected: str) -> None:
    with pytest.raises(TaskError) as caught:
        render(template, ITEM, is_jinja=True)

    assert caught.value.kind == "prompt"
    assert expected in str(caught.value)


def test_names_are_listed_once_and_in_order() -> None:
    assert names("{b} {a} {b} {{c}}") == ["b", "a"]
    assert names("{{ b }}{% if a %}{% endif %}", is_jinja=True) == ["a", "b"]


def test_an_item_nested_very_deeply_is_no_fault() -> None:
    deep: object = 1
    for _ in range(900):
        deep = {"a": deep}

    assert "a__a" in flatten(deep)
