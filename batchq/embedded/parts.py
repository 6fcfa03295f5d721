"""The processes of a stack, as values, and the words its supervisor and its owner exchange."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path

WORKER = "batchq.queue.worker"
"""The module that a worker runs."""


class Rank(IntEnum):
    """Who needs whom: parts of a higher rank are stopped before those of a lower one."""

    BROKER = 0  # everyone talks to Redis
    SERVER = 1  # workers call it
    WORKER = 2


@dataclass(frozen=True, slots=True)
class Part:
    """One process of a stack. `env` is added to the environment of the supervisor.

    A part with a `pidfile` has come up once it wrote it, any other when it lived for a second.
    With a `module`, `argv` are the arguments of a Python that runs it; else they begin with a
    program.
    """

    name: str
    argv: tuple[str, ...]
    log: str
    rank: Rank
    env: Mapping[str, str] = field(default_factory=dict)
    restart: bool = True
    pidfile: str = ""
    module: str = ""

    @property
    def command(self) -> tuple[str, ...]:
        """What runs it as a program."""
        return (sys.executable, "-P", "-m", self.module, *self.argv) if self.module else self.argv


@dataclass(frozen=True, slots=True)
class Gone:
    """A part that ended and is not started again."""

    name: str
    code: int
    log: str

    def __str__(self) -> str:
        how = f"signal {-self.code}" if self.code < 0 else f"exit {self.code}"
        return f"{self.name} ended ({how})"


def encode_part(part: Part) -> bytes:
    """Writes the command that starts a part."""
    return json.dumps({"start": asdict(part)}).encode() + b"\n"


def decode_part(data: Mapping[str, object]) -> Part:
    """Reads a part out of its command."""
    values = dict(data)
    values["argv"] = tuple(values["argv"])  # type: ignore[arg-type]
    values["rank"] = Rank(values["rank"])  # type: ignore[arg-type]
    return Part(**values)  # type: ignore[arg-type]


def worker_part(
    name: str,
    queue: str,
    pool: str,
    slots: int,
    *,
    logs: Path,
    env: Mapping[str, str],
    level: str,
    is_watched: bool = False,
) -> Part:
    """A Celery worker of one queue; `name` is its node name and its log's.

    One that is watched can be asked for events of its tasks: Celery's have no way to send them
    that send no heartbeats.
    """
    pidfile = str(logs / f"{name}.pid")
    argv = (
        *("-Q", queue, "-P", pool, "-c", str(slots), "-n", f"{name}-{os.getpid()}@%h"),
        *("-l", level, "--without-gossip", "--without-mingle", "--pidfile", pidfile),
        *(() if is_watched else ("--without-heartbeat",)),
    )
    log = str(logs / f"{name}.log")
    return Part(name, argv, log, Rank.WORKER, env, pidfile=pidfile, module=WORKER)
