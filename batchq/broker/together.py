"""Lets threads of a process share round trips, where they ask for the same at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

MOST = 64
"""The most that is asked for at once."""


class Together(Generic[Asked, Answer]):
    """Does at once what many threads ask for; alone, a thread waits for nobody.

    Who comes while others are served waits, and goes with all who came meanwhile: the more there
    is to do, the more of it shares a round trip. Databases write their logs so (group commit).
    `do` gets what was asked, `MOST` at most, and returns as many answers; what it raises, all of
    them raise.
    """

    def __init__(self, do: Callable[[Sequence[Asked]], Sequence[Answer]]) -> None:
        self._do = do
        self._lock = threading.Lock()
        self._waiting: list[_Question[Asked, Answer]] = []
        self._is_busy = False

    def ask(self, what: Asked) -> Answer:
        """Returns the answer to this one question."""
        mine: _Question[Asked, Answer] = _Question(what)
        with self._lock:
            self._waiting.append(mine)
            is_first = not self._is_busy
            self._is_busy = True
        if not is_first:
            mine.turn.acquire()  # until it is answered, or is the first of those who wait
        if mine.answer is None and mine.error is None:
            self._answer_those_who_wait()
        if mine.error is not None:
            raise mine.error
        assert mine.answer is not None
        return mine.answer[0]

    def _answer_those_who_wait(self) -> None:
        with self._lock:
            some, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        try:
            answers = self._do([one.what for one in some])
            for one, answer in zip(some, answers, strict=True):
                one.answer = (answer,)
        except BaseException as error:  # noqa: BLE001 (nobody may wait for ever)
            for one in some:
                one.answer, one.error = None, error
        finally:
            with self._lock:
                following = self._waiting[:1]
                self._is_busy = bool(following)
            for one in (*some, *following):
                one.turn.release()


class _Question(Generic[Asked, Answer]):
    """What one thread asks; `turn` is held until it is its turn to go on."""

    __slots__ = ("answer", "error", "turn", "what")

    def __init__(self, what: Asked) -> None:
        self.what = what
        self.answer: tuple[Answer] | None = None
        self.error: BaseException | None = None
        self.turn = threading.Lock()
        self.turn.acquire()
