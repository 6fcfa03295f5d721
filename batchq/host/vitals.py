"""Notes when each process of this host began its task: one that dies cannot say it any more."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

FOLDER = "at-work"


class Vitals:
    """Small files in the home folder, one a process that is at work."""

    def __init__(self, home: Path) -> None:
        self._folder = home.absolute() / FOLDER

    def begin(self) -> None:
        """Notes that this process begins a task now, in place of the one before."""
        with suppress(OSError):  # no job fails for want of a note
            self._folder.mkdir(parents=True, exist_ok=True)
            self._path(os.getpid()).write_text(f"{time.time():.3f}", "ascii")

    def end(self) -> None:
        """Notes that it has ended."""
        with suppress(OSError):
            self._path(os.getpid()).unlink()

    def take(self, pid: int) -> float | None:
        """When a process that died began its task, in seconds since the epoch; it is forgotten."""
        path = self._path(pid)
        with suppress(OSError, ValueError):
            began = float(path.read_text("ascii"))
            path.unlink(missing_ok=True)
            return began
        return None

    def _path(self, pid: int) -> Path:
        return self._folder / f"{socket.gethostname()}-{pid}"
