"""Who asks while others are served goes with the next ones; alone, nobody waits."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from batchq.broker import together
from batchq.broker.together import Together
from batchq.errors import QueueError


class Doubling:
    """Doubles numbers; holds whoever asks first until it is told to go on."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.has_begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, asked: Sequence[int]) -> list[int]:
        self.rounds.append(list(asked))
        self.has_begun.set()
        assert self.go_on.wait(20)
        if 13 in asked:
            raise QueueError("away")
        return [2 * one for one in asked]


@pytest.fixture
def doubling() -> Doubling:
    return Doubling()


def ask_behind_one(doubling: Doubling, numbers: Sequence[int], wait_for) -> list[object]:
    """Asks for 1, and for all the others while that is under way."""
    doubled = Together(doubling)

    def ask(number: int) -> object:
        try:
            return doubled.ask(number)
        except QueueError as error:
            return str(error)

    with ThreadPoolExecutor(len(numbers) + 1) as pool:
        first = pool.submit(ask, 1)
        assert doubling.has_begun.wait(20)
        others = [pool.submit(ask, number) for number in numbers]
        wait_for(lambda: len(doubled._waiting) == len(numbers), "all others wait")
        doubling.go_on.set()
        return [first.result(20), *(other.result(20) for other in others)]


def test_one_alone_is_served_at_once(doubling):
    doubling.go_on.set()
    doubled = Together(doubling)

    assert [doubled.ask(1), doubled.ask(2)] == [2, 4]
    assert doubling.rounds == [[1], [2]]


def test_who_comes_meanwhile_shares_the_next_round(doubling, wait_for):
    answers = ask_behind_one(doubling, [2, 3, 4, 5], wait_for)

    assert answers == [2, 4, 6, 8, 10]
    assert [sorted(one) for one in doubling.rounds] == [[1], [2, 3, 4, 5]]


def test_a_round_has_bounds(doubling, wait_for, monkeypatch):
    monkeypatch.setattr(together, "MOST", 2)

    answers = ask_behind_one(doubling, [2, 3, 4, 5, 6], wait_for)

    assert answers == [2, 4, 6, 8, 10, 12]
    assert [len(one) for one in doubling.rounds] == [1, 2, 2, 1]


def test_what_fails_fails_for_its_round_alone(doubling, wait_for, monkeypatch):
    monkeypatch.setattr(together, "MOST", 2)

    answers = ask_behind_one(doubling, [13, 13, 13, 13], wait_for)

    assert answers == [2, "away", "away", "away", "away"]
    assert len(doubling.rounds) == 3


def test_too_few_answers_are_an_error_and_no_wait_for_ever():
    with pytest.raises(ValueError, match="shorter"):
        Together(lambda _asked: []).ask(1)
