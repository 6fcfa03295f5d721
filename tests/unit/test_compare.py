from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.outcome import ItemError, Outcome, State
from batchq.runs.compare import (
    ABSENT,
    Change,
    Changes,
    FieldChange,
    compare_item,
    compare_values,
    id_ranges,
    pair_items,
    sum_up,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
IDS = st.lists(st.text(max_size=3), unique=True, max_size=12)


def ok(item_id: str, output: Any = None, index: int = 0) -> Outcome:
    return Outcome(item_id, index, State.OK, output=output)


def bad(item_id: str, message: str = "too slow", index: int = 0) -> Outcome:
    return Outcome(item_id, index, State.FAILED, error=ItemError("timeout", message))


def compare(left: list[Outcome], right: list[Outcome], *, keep_values: bool = True) -> Changes:
    changes = (compare_item(old, new) for old, new in pair_items(left, right))
    return sum_up(changes, keep_values=keep_values)


def test_an_item_is_told_by_what_became_of_it_and_regressions_come_first():
    left = [ok("same", 1), ok("worse", 1), bad("better"), ok("other", 1), bad("bad"), ok("gone", 1)]
    right = [ok("same", 1), bad("worse"), ok("better", 1), ok("other", 2), bad("bad"), ok("new", 1)]

    found = compare(left, right)

    assert [(one.item_id, one.change) for one in found.items] == [
        ("worse", Change.REGRESSED), ("better", Change.FIXED), ("other", Change.CHANGED),
        ("bad", Change.FAILED), ("new", Change.ADDED), ("gone", Change.REMOVED),
    ]  # fmt: skip
    assert found.counts == dict.fromkeys(Change, 1)
    assert found.items[0].new_error == "timeout: too slow"
    assert found.items[1].old_error == "timeout: too slow"


def test_fields_are_counted_over_items_the_most_changed_first():
    left = [ok("a", {"q": 1, "w": {"x": 1}}), ok("b", {"q": 1, "w": {"x": 1}})]
    right = [ok("a", {"q": 2, "w": {"x": 2}}), ok("b", {"q": 1, "w": {"x": 3}})]

    found = compare(left, right)

    assert list(found.fields.items()) == [("w__x", 2), ("q", 1)]


def test_values_are_left_out_where_nobody_asked_for_them():
    found = compare([ok("a", {"q": 1})], [ok("a", {"q": 2})], keep_values=False)

    assert found.items[0].fields == ()
    assert found.fields == {"q": 1}


@pytest.mark.parametrize(
    ("old", "new", "fields"),
    [
        ({"a": 1}, {"a": 1, "b": None}, [("b", ABSENT, None)]),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, [("a__b", 1, 2)]),
        ({"a": {"b": 1}}, {"a": 2}, [("a", ABSENT, 2), ("a__b", 1, ABSENT)]),
        ({"a": [1]}, {"a": [True]}, [("a", [1], [True])]),
        ({"a": 1}, {"a": 1.0}, []),
        ("text", "other", [("(output)", "text", "other")]),
        (
            {"a": {"b": 1}, "a__b": 2},
            {"a": {"b": 3}, "a__b": 2},
            [("(output)", {"a": {"b": 1}, "a__b": 2}, {"a": {"b": 3}, "a__b": 2})],
        ),
    ],
)
def test_a_change_is_told_by_field(old, new, fields):
    assert compare_values(old, new) == tuple(FieldChange(*one) for one in fields)


@given(JSON, JSON)
def test_two_values_differ_in_the_same_fields_either_way_and_not_from_themselves(one, other):
    there = {(change.field, repr(change.old)) for change in compare_values(one, other)}
    back = {(change.field, repr(change.new)) for change in compare_values(other, one)}

    assert there == back
    assert compare_values(one, one) == ()


@given(IDS, IDS)
def test_pairing_finds_every_partner_in_any_order_and_loses_nothing(left, right):
    pairs = list(pair_items(map(ok, left), map(ok, right)))

    both = {old.item_id for old, new in pairs if old and new}
    assert all(old.item_id == new.item_id for old, new in pairs if old and new)
    assert both == {*left} & {*right}
    assert sorted(old.item_id for old, _ in pairs if old) == sorted(left)
    assert sorted(new.item_id for _, new in pairs if new) == sorted(right)


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (["4001", *map(str, range(4003, 4015))], "4001, 4003-4014"),
        (["1", "2", "4"], "1, 2, 4"),
        (["item_8", "item_9", "item_10"], "item_8..item_10"),
        (["a08", "a09", "a10"], "a08..a10"),
        (["9", "010", "11"], "9, 010, 11"),
        (["b", "a"], "b, a"),
        ([], ""),
    ],
)
def test_ids_that_count_up_are_written_as_a_range(ids, text):
    assert id_ranges(ids) == text


def test_a_long_list_of_ids_says_how_many_it_leaves_out():
    assert id_ranges(["1", "2", "3", "x", "y", "z"], most=2) == "1-3, x and 2 more"
