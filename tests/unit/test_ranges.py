from __future__ import annotations

from batchq.ranges import is_within, ranges


def test_ranges_hold_rising_numbers() -> None:
    assert ranges([]) == ()
    assert ranges([0, 1, 2, 5, 7, 8]) == ((0, 3), (5, 6), (7, 9))


def test_a_number_is_within_ranges_that_hold_it() -> None:
    held = [0, 1, 2, 5, 7, 8]

    assert [index for index in range(-1, 11) if is_within(index, ranges(held))] == held
    assert not is_within(0, ())
