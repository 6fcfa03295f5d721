from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.errors import ProviderError
from batchq.outcome import ItemError, Outcome, State
from batchq.report.failures import Failure, failure_of, group_failures, normalise

NUMBERS = st.integers(0, 10**12) | st.floats(0, 10**6, allow_nan=False).map(lambda x: round(x, 3))
QUOTED = st.text(st.characters(exclude_characters='"\\\n\r', exclude_categories=["Cs"]), max_size=9)
NAMES = st.from_regex(r"[a-z]{1,8}(/[a-z0-9_.-]{1,6}){0,3}", fullmatch=True)


def failure(item_id: str, message: str, kind: str = "server", step: str = "generate") -> Failure:
    return Failure(item_id, step, ItemError(kind, message))


@given(NUMBERS, NUMBERS)
def test_messages_that_differ_in_a_number_are_one_group(one, other):
    messages = [f"context of {n} tokens is over {n}; waited {n}s" for n in (one, other)]

    groups = group_failures([failure("a", messages[0]), failure("b", messages[1])])

    assert [group.count for group in groups] == [2]


@given(QUOTED, QUOTED)
def test_messages_that_differ_in_a_quoted_text_are_one_group(one, other):
    assert normalise(f'no field "{one}" here') == normalise(f'no field "{other}" here')


@given(NAMES, NAMES)
def test_messages_that_differ_in_a_path_or_a_url_are_one_group(one, other):
    assert normalise(f"cannot read /{one}: gone") == normalise(f"cannot read /{other}: gone")
    assert normalise(f"GET https://{one}: 500") == normalise(f"GET https://{other}: 500")


@given(st.uuids(), st.uuids())
def test_messages_that_differ_in_a_request_id_are_one_group(one, other):
    assert normalise(f"request {one} broke") == normalise(f"request {other} broke")
    assert normalise(f"request {one.hex} broke") == normalise(f"request {other.hex} broke")


@given(st.text(max_size=200))
def test_any_message_has_a_form_that_stays_the_same_when_it_is_made_again(message):
    once = normalise(message)

    assert normalise(once) == once


def test_the_items_own_id_does_not_tell_failures_apart():
    groups = group_failures(
        [failure("anna", "no output for anna"), failure("bert", "no output for bert")]
    )

    assert [group.count for group in groups] == [2]
    assert groups[0].pattern == "no output for <id>"


def test_other_words_and_other_kinds_are_other_groups_the_largest_first():
    groups = group_failures(
        [
            failure("a", "no answer in 90 s", "timeout"),
            failure("b", "it's closed", "connection"),
            failure("c", "no answer in 60 s", "timeout", step="format"),
            failure("d", "no answer in 60 s", "server"),
        ]
    )

    assert [(group.kind, group.count) for group in groups] == [
        ("timeout", 2), ("connection", 1), ("server", 1),
    ]  # fmt: skip
    assert groups[0].item_ids == ("a", "c")
    assert groups[0].steps == ("generate", "format")
    assert groups[0].sample.item_id == "a"
    assert groups[1].pattern == "it's closed"


@pytest.mark.parametrize(
    ("kind", "can_retry"),
    [
        ("rate_limit", True), ("timeout", True), ("not_json", True), ("worker_lost", True),
        ("auth", False), ("context_too_long", False), ("prompt", False), ("of_a_plugin", False),
    ],
)  # fmt: skip
def test_a_group_says_whether_a_retry_can_help_and_what_else_would(kind, can_retry):
    group = group_failures([failure("a", "x", kind)])[0]

    assert group.can_retry is can_retry
    assert group.advice


def test_what_providers_may_raise_again_is_what_a_retry_can_help():
    kinds = {one.kind: one.retryable for one in ProviderError.__subclasses__()}

    found = {kind: group_failures([failure("a", "x", kind)])[0].can_retry for kind in kinds}

    assert found == kinds


def test_an_item_that_is_ok_is_no_failure():
    assert failure_of(Outcome("a", 0, State.OK, output=1), "generate") is None
