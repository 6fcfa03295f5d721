from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.errors import StoreError
from batchq.outcome import Attempt, ItemError, Outcome, State, Summary, Usage
from batchq.store.lines import Line, read_lines, tally, to_line

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
# What stands after an output, as text and as keys inside one.
TRAP = {"error": None, "attempts": [{"number": 1}], 'x","error":null,"attempts":[': 1}


def ok(output: Any, item_id: str = "a", started_at: float = 0.0) -> Outcome:
    attempts = (Attempt(1, started_at, 0.5, usage=Usage(1, 10, 5)), Attempt(2, started_at, 0.5))
    return Outcome(
        item_id, 3, State.OK, output, attempts=attempts, started_at=started_at, worker="w"
    )


def failed(item_id: str = "a") -> Outcome:
    error = ItemError("schema", '"error":null,"attempts":[')
    return Outcome(
        item_id, 3, State.FAILED, error=error, attempts=(Attempt(1, 0, 1, error=error),), raw="{"
    )


def read(*outcomes: Outcome) -> list[Line]:
    return list(read_lines("record", io.BytesIO(b"".join(map(to_line, outcomes)))))


@given(st.text(), JSON)
def test_a_line_says_of_an_outcome_what_the_outcome_says(item_id: str, output: Any) -> None:
    outcome = ok(output, item_id)

    (line,) = read(outcome)

    assert (line.item_id, line.index, line.is_ok) == (item_id, 3, True)
    assert line.output == output
    assert line.outcome == outcome


def test_a_failed_item_is_seen_to_have_failed_and_has_no_output() -> None:
    (line,) = read(failed())

    assert not line.is_ok
    assert line.output is None
    assert line.outcome == failed()


@given(JSON, JSON)
def test_outputs_of_the_same_bytes_are_told_from_others_whatever_else_differs(
    old: Any, new: Any
) -> None:
    left, right, again = read(ok(old), ok(new, started_at=9.5), ok(old, started_at=7.25))

    assert left.has_same_output(again)
    assert left.has_same_output(right) == (json.dumps(old) == json.dumps(new))


@given(st.lists(JSON, max_size=4))
def test_lines_are_counted_as_their_outcomes_are_whatever_their_outputs_look_like(
    outputs: list[Any],
) -> None:
    two_stages = (
        Attempt(1, 0, 1, stage="a"),
        Attempt(1, 0, 1, stage="b"),
        Attempt(2, 0, 1, stage="b"),
    )
    outcomes = [
        *(ok(output) for output in (*outputs, TRAP, [TRAP], {"usage": {"calls": 9}})),
        *(failed(), replace(failed(), attempts=two_stages, usage=Usage(3, 30, 15, 900, 1))),
        *(replace(ok(1), cached=True), replace(ok(2), repaired=True, usage=Usage(2, 4, 8, 16))),
    ]

    assert tally(read(*outcomes)) == sum(map(Summary.of, outcomes), Summary())


def test_only_what_failed_is_read_where_that_is_asked_for() -> None:
    written = json.dumps(json.loads(to_line(failed("c")))).encode() + b"\n"
    lines = to_line(ok(TRAP)) + to_line(failed("b")) + written

    found = read_lines("record", io.BytesIO(lines), only_failed=True)

    assert [line.item_id for line in found] == ["b", "c"]


@pytest.mark.parametrize("output", [TRAP, [TRAP, TRAP], json.dumps(TRAP), {"output": TRAP}])
def test_an_output_that_looks_like_the_rest_of_a_line_is_compared_to_its_end(output: Any) -> None:
    left, right = read(ok([output, 1]), ok([output, 2]))

    assert not left.has_same_output(right)
    assert left.has_same_output(left)


def test_failed_items_have_no_output_to_be_the_same() -> None:
    left, right = read(failed(), ok(None))

    assert not left.has_same_output(left)
    assert not left.has_same_output(right)


def test_lines_that_were_written_otherwise_are_read_too() -> None:
    text = json.dumps(json.loads(to_line(ok({"a": 1}))), indent=None).encode() + b"\n"
    short = b'{"item_id":"a","index":3,"state":"ok","output":{"a":1}}\n'

    spaced, shortened = read_lines("record", io.BytesIO(text + short))

    assert spaced.outcome == ok({"a": 1})
    assert tally([spaced]) == Summary.of(ok({"a": 1}))
    assert tally([shortened]) == Summary(ok=1)
    assert shortened.output == {"a": 1}
    assert not spaced.has_same_output(shortened)  # nobody knows at a glance


@pytest.mark.parametrize(
    "text",
    [
        b'{"item_id":"a","index":3,"state":"ok","output":{"a":1},"err\n',
        b'{"item_id":"a","index":3,"state":"ok","output":{"a":}}\n',
        b'{"item_id":"a","index":"x","state":"ok"}\n',
        b"nonsense\n",
    ],
)
def test_a_broken_line_is_named_by_its_place(text: bytes) -> None:
    lines = read_lines("record", io.BytesIO(to_line(ok(1)) + text))

    with pytest.raises(StoreError, match="record:2: broken") as raised:
        _ = [line.output for line in lines]

    assert "batchq resume" in str(raised.value)
