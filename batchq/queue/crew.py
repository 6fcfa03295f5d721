"""The slots of a process that take items of a queue one by one, and share their round trips."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from batchq.broker.together import Together
from batchq.outcome import Outcome
from batchq.ports import ItemRef
from batchq.queue.backend import Part
from batchq.queue.taking import Taken, Taker

if TYPE_CHECKING:
    from batchq.queue.app import BatchqApp


_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Ended:
    """An item that has ended: its outcome, if it has one, and its task."""

    part: Part
    outcome: tuple[ItemRef, Outcome] | None = None


class Crew:
    """What slots that are busy with the same queue ask of Redis together."""

    def __init__(self, app: BatchqApp, queue: str, marks: Sequence[str]) -> None:
        self._app = app
        self._marks = marks
        self._taker = Taker(app, queue, f"crew{next(_numbers)}")
        self._next: Together[None, Taken | None] = Together(self._take)
        self._end: Together[Ended, None] = Together(self._keep)
        self._lock = threading.Lock()
        self._slots = 0

    def __enter__(self) -> Crew:
        with self._lock:
            self._slots += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._slots -= 1
            if not self._slots:  # all that was taken is claimed, so leases know of it
                self._taker.drop()

    def next(self) -> Taken | None:
        """An item to run, claimed; None if the worker should look for the next one."""
        return self._next.ask(None)

    def end(self, ended: Ended) -> None:
        """Keeps an outcome, then counts its task; returns when both are done."""
        self._end.ask(ended)

    def _take(self, asked: Sequence[None]) -> list[Taken | None]:
        ready: list[Taken] = []
        while not ready and (texts := self._taker.take(len(asked), self._marks)):
            ready, ended = self._taker.claim(texts)
            self._count(ended)
        return [*ready, *[None] * (len(asked) - len(ready))]

    def _keep(self, ended: Sequence[Ended]) -> list[None]:
        if outcomes := [one.outcome for one in ended if one.outcome]:
            self._app.services.bulk.commit(outcomes)
        self._count([one.part for one in ended])
        return [None] * len(ended)

    def _count(self, parts: Sequence[Part]) -> None:
        backend: Any = self._app.backend
        backend.count_parts(parts)


@lru_cache(maxsize=16)
def crew_of(app: BatchqApp, owner: str, queue: str, marks: Sequence[str]) -> Crew:  # noqa: ARG001
    """That of a process for messages with these marks, for as long as it has the name `owner`."""
    return Crew(app, queue, marks)
