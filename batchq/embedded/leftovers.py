"""Knows which stacks are alive, and stops what a dead one left behind."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

LOCK_FILE = "lock"
RECORDS_FILE = "processes.json"
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Record:
    """A process of a stack, as it is written down."""

    name: str
    pid: int
    birth: str

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs, not another one with its number."""
        return bool(self.birth) and birth_of(self.pid) == self.birth


def hold_lock(folder: Path) -> IO[bytes] | None:
    """Takes the lock of a stack's folder, until the file is closed; None if another has it.

    The kernel frees it when its holder dies, however that happens, and no pid can be mistaken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK_FILE).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def birth_of(pid: int) -> str:
    """What tells a process from a later one with the same number; empty if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        if Path("/proc/self").exists():
            return ""
        asked = subprocess.run(  # noqa: S603 (no shell, a number)
            ["ps", "-o", "lstart=", "-p", str(pid)],  # noqa: S607 (POSIX, wherever it is)
            capture_output=True,
            text=True,
            check=False,
        )
        return asked.stdout.strip()
    after_name = stat.rpartition(")")[2].split()
    return "" if after_name[0] == "Z" else after_name[19]  # field 22 of proc(5): start time


def write_records(folder: Path, records: Sequence[Record]) -> None:
    """Writes down which processes belong to a stack."""
    fresh = folder / f"{RECORDS_FILE}.new"
    fresh.write_text(json.dumps([asdict(record) for record in records]), encoding="utf-8")
    fresh.replace(folder / RECORDS_FILE)


def stop_leftovers(folder: Path) -> list[Record]:
    """Stops the processes of a stack whose supervisor was killed; returns those it found.

    Call it with the folder's lock in hand. A pid that meanwhile belongs to another process is
    left alone.
    """
    found = [record for record in _read_records(folder) if record.is_alive]
    for record in found:
        # Redis saves on SIGTERM; workers have nobody left to work for.
        _signal_group(record.pid, signal.SIGTERM if record.name == "redis" else signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE_S
    for record in found:
        while record.is_alive:
            if time.monotonic() > deadline:
                _signal_group(record.pid, signal.SIGKILL)
                break
            time.sleep(0.02)
    return found


def _read_records(folder: Path) -> list[Record]:
    try:
        rows = json.loads((folder / RECORDS_FILE).read_bytes())
    except (OSError, ValueError):
        return []
    return [Record(**row) for row in rows]


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return
