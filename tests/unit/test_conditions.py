from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.errors import TaskError
from batchq.text.conditions import compile_condition, evaluate

ITEM = {"type": "boolean", "n": 3, "tags": ["a", "b"], "deep": {"x": {"y": "z"}}, "gone": None}


@pytest.mark.parametrize(
    "text",
    [
        "type == 'boolean'",
        "type != 'number' and n > 2",
        "1 < n <= 3",
        "'a' in tags and 'c' not in tags",
        "deep__x__y == 'z'",
        "not (n == 4 or false)",
        "len(tags) == 2",
        "lower('ABC') == 'abc'",
        "type in ['boolean', 'text']",
        "n == -(-3)",
        "gone == null and gone is None",
        "true",
    ],
)
def test_a_condition_that_holds(text: str) -> None:
    assert evaluate(text, ITEM) is True


@pytest.mark.parametrize("text", ["n > 3", "type == 'x'", "not tags", "tags == []", "gone"])
def test_a_condition_that_does_not_hold(text: str) -> None:
    assert evaluate(text, ITEM) is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type = 'boolean'", "not a condition: "),
        ("", "not a condition: "),
        ("a.b == 1", "`a.b` is not allowed: a field of a field is written with __"),
        ("a['b']", "`a['b']` is not allowed: a field of a field is written with __"),
        ("n + 1 == 2", "`n + 1` is not allowed: no arithmetic"),
        ("__import__('os')", "only len(x) and lower(x) can be called"),
        ("(lambda: 1)()", "only len(x) and lower(x) can be called"),
        ("[x for x in tags]", "is not allowed"),
        ("f'{n}'", "no f-strings"),
        ("(n := 3)", "is not allowed"),
        ("9 ** 9 ** 9 > 1", "no arithmetic"),
        ("a\0b", "not a condition: "),
        ("x" * 1001, "a condition has at most 1000 characters"),
        ("not " * 40 + "n", "the condition is nested too deeply"),
        ("(" * 400 + "n" + ")" * 400, "not a condition: "),
    ],
)
def test_what_is_not_allowed_is_refused_before_anything_runs(text: str, expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        compile_condition(text)

    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ["away", "deep__away", "gone"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", False),
        ("not {}", True),
        ("{} == null", True),
        ("{} != 'x'", True),
        ("{} == ''", False),
        ("{} < 5", False),
        ("{} >= 5", False),
        ("not {} < 5", True),
        ("-{} < 5", False),
        ("5 > {}", False),
        ("'a' in {}", False),
        ("'a' not in {}", True),
        ("{} in ['a', 'b']", False),
        ("len({}) == 0", True),
        ("lower({}) == 'x'", False),
        ("{} == 'x' or n == 3", True),
    ],
)
def test_a_field_that_an_item_lacks_is_null(
    name: str,
    text: str,
    expected: bool,
) -> None:
    assert evaluate(text.format(name), ITEM) is expected


@pytest.mark.parametrize("text", ["type < 3", "1 in n", "len(n) > 1", "lower(n) == 'x'", "-type"])
def test_values_that_do_not_fit_are_an_error_of_the_item(text: str) -> None:
    with pytest.raises(TaskError, match="when: ") as caught:
        evaluate(text, ITEM)

    assert caught.value.kind == "prompt"


def test_a_condition_knows_the_names_it_asks_for() -> None:
    assert compile_condition("a == 1 and b in [a, true]").names == ("a", "b")


@given(text=st.text(max_size=60))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    try:
        compile_condition(text)
    except ValueError as error:
        assert str(error)  # noqa: PT017 (either is right)
