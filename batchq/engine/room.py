"""Counts what running jobs of one host have reserved: slots and memory, over all its processes."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchq.plan import Resources


class Room:
    """What is reserved on this host, in a file of the home folder; what dead processes held is not.

    Work without `resources` is not counted.
    """

    def __init__(self, home: Path) -> None:
        self._path = home.absolute() / f"room-{socket.gethostname()}.json"

    def take(self, need: Resources, slots: int, memory: int) -> bool:
        """Reserves for this thread, if it fits into so many slots and bytes now."""
        with self._held() as held:
            others = {name: one for name, one in held.items() if name != _own_name()}
            used_slots = sum(one[0] for one in others.values())
            used_memory = sum(one[1] for one in others.values())
            if used_slots + need.slots > slots or used_memory + need.memory > memory:
                return False
            held[_own_name()] = [need.slots, need.memory]
            return True

    def give_back(self) -> None:
        """Ends what this thread has reserved."""
        with self._held() as held:
            held.pop(_own_name(), None)

    @contextmanager
    def _held(self) -> Iterator[dict[str, list[int]]]:
        """The reservations of live processes; what is changed in them is kept."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            held = {name: one for name, one in _read(file.read()).items() if _is_alive(name)}
            yield held
            file.seek(0)
            file.truncate()
            json.dump(held, file)


def _read(text: str) -> dict[str, list[int]]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}  # a writer was killed half way: who lives reserves again at its next job
    return found if isinstance(found, dict) else {}


def _own_name() -> str:
    return f"{os.getpid()}/{threading.get_ident()}"


def _is_alive(name: str) -> bool:
    try:
        os.kill(int(name.partition("/")[0]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
