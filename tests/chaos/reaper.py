"""Counts what a process writes to disks, databases and Redis, and stands in the way of it.

Disks are seen by audit events of the interpreter, databases by events of SQLAlchemy, Redis by what
is sent: nothing of the product knows that it is watched.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from redis.connection import AbstractConnection
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

Fault = Literal["death", "torn", "full"]
"""What comes at the k-th write: the process dies; or does so half way through a message to Redis;
or the disk is full from then on."""

READS = frozenset(
    [
        *("AUTH", "CLIENT", "EXISTS", "GET", "HELLO", "HEXISTS", "HGET", "HGETALL", "HLEN"),
        *("HMGET", "HVALS", "INFO", "LINDEX", "LLEN", "LRANGE", "MGET", "PING", "SCAN", "SELECT"),
        *("SMEMBERS", "SUBSCRIBE", "UNSUBSCRIBE", "ZRANGE", "ZRANGEBYSCORE", "ZSCORE"),
    ]
)
FILE_EVENTS = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.symlink")
TAKES_SPACE = ("open", "os.mkdir", "os.link", "os.symlink", "sql")


class Reaper:
    """Counts the writes of this process while it is on duty, and does its worst at one of them."""

    def __init__(self, note: Path, at: int = 0, fault: Fault = "death") -> None:
        self.note = note
        self.at = at
        self.fault = fault
        self.is_full = False
        self.writes: list[str] = []
        self._duty = False
        self._thread = threading.get_ident()

    def watch(self, action: Callable[[], Any]) -> Any:
        """Counts what an action writes."""
        self._duty = True
        try:
            return action()
        finally:
            self._duty = False

    def write(self, what: str, tear: Callable[[], None] | None = None) -> None:
        """Notes a write that is about to happen, unless nobody lives to see it."""
        if not self._duty or threading.get_ident() != self._thread:
            return
        if self.fault == "full" and not what.startswith(TAKES_SPACE):
            return
        self.writes.append(what)
        if len(self.writes) == self.at:
            self._duty = False
            self.note.write_text(what)
            self._duty = True
            if self.fault == "full":
                self.is_full = True
            else:
                if self.fault == "torn" and tear:
                    tear()
                os._exit(9)
        if self.is_full:
            if what.startswith("sql"):
                raise OperationalError(what, {}, Exception("database or disk is full"))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def install(self) -> None:
        """Looks at everything that reaches a disk or Redis from here."""
        sys.addaudithook(self._audit)
        send = AbstractConnection.send_packed_command
        reaper = self

        def counted(self: Any, command: Any, check_health: bool = True) -> None:
            chunks = [command] if isinstance(command, str | bytes) else list(command)
            data = b"".join(one.encode() if isinstance(one, str) else bytes(one) for one in chunks)
            names = [name for name in _commands(data) if name not in READS]
            if names:
                reaper.write(
                    f"redis {' '.join(dict.fromkeys(names))}",
                    lambda: self._sock.sendall(data[: len(data) // 2]),
                )
            send(self, chunks, check_health)

        AbstractConnection.send_packed_command = counted  # type: ignore[method-assign]
        event.listen(Engine, "before_cursor_execute", self._execute)
        event.listen(Engine, "commit", lambda _: self.write("sql COMMIT"))

    def _audit(self, name: str, args: tuple[Any, ...]) -> None:
        if not self._duty:
            return
        if name in FILE_EVENTS:
            self.write(f"{name} {_tail(args[0])} {_tail(args[1])}")
        elif name == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR):
            self.write(f"open {_tail(args[0])}")

    def _execute(self, _c: Any, _k: Any, statement: str, *_: Any) -> None:
        word = statement.split(None, 1)[0].upper()
        if word not in ("SELECT", "PRAGMA"):
            self.write(f"sql {word}")


def _tail(path: Any) -> str:
    return Path(os.fsdecode(path)).name if isinstance(path, str | bytes | os.PathLike) else ""


def _commands(data: bytes) -> Iterator[str]:
    for match in re.finditer(rb"(?:^|\r\n)\*\d+\r\n\$\d+\r\n([A-Za-z]+)\r\n", data):
        yield match[1].decode().upper()
