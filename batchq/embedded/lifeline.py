"""Ties child processes to the process that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with_parent(how: signal.Signals) -> Callable[[], None] | None:
    """Makes a `preexec_fn` that has the kernel send `how` to the child when its parent dies.

    Linux only, None elsewhere. The kernel looks at the thread that forked, not at the process,
    so call Popen from a thread that lives as long as the process does: the main one.
    """
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    prctl = libc.prctl  # looked up here: between fork and exec nothing may take a lock
    parent = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(how), 0, 0, 0)
        if os.getppid() != parent:  # it died between the fork and the line above
            os._exit(1)

    return tie
