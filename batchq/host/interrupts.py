"""Ctrl-C, SIGTERM and a closed terminal, as something to ask for instead of an exception."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any, Self

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Counts requests to stop. The first is to be asked for, any other is a KeyboardInterrupt.

    So whoever follows a run can end its work in order, and a person in a hurry can end it now.
    Outside of the main thread Python lets nobody handle signals: there it counts none.
    """

    def __init__(self, signals: Iterable[signal.Signals] = ENDING) -> None:
        self.is_set = False
        self._signals = tuple(signals)
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self._signals}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True
