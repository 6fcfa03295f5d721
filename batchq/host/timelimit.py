"""Ends a Python function that takes too long."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_AGAIN_S = 5.0


class TimeIsUp(Exception):
    """Raised inside a task function at the end of its time; it may catch it to tidy up."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeIsUp in the block after so many seconds, and again if that was caught; 0 is never.

    Only the main thread of a process can be interrupted so, which is where prefork workers run
    their tasks; elsewhere there is no limit. Code in C is interrupted when it comes back to Python.
    """
    if not seconds or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: Any) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
