"""Starts the parts of a stack, restarts those that die, and stops all when its owner is gone.

A process of its own, in its own session: a Ctrl-C on the terminal does not reach it, and it
outlives a SIGKILL of its owner by the seconds it takes to stop the parts. Its standard input is
the lifeline: commands come in on it, and its end means that the owner is gone. It imports the
standard library only, for it must be up before anything else; what workers import, it imports
while it waits, and a worker is a fork of it.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

from batchq.embedded.forks import WARM, Fork, Forked, become, fork_for, import_for_workers
from batchq.embedded.leftovers import Record, birth_of, write_records
from batchq.embedded.lifeline import die_with_parent
from batchq.embedded.parts import Gone, Part, Rank, decode_part

ORPHAN_GRACE_S = 2.0
BROKER_GRACE_S = 5.0
# Generous: an item that kills its worker does so a few times before it is given up.
MAX_RESTARTS = 30
RESTART_WINDOW_S = 60.0
RESTART_DELAY_MAX_S = 2.0
UP_AFTER_S = 1.0
_TICK_S = 0.2


@dataclass
class _Running:
    part: Part
    process: subprocess.Popen[bytes] | Fork
    starts: deque[float] = field(default_factory=deque)
    start_again_at: float | None = None
    came_up: bool = False

    def notice_if_up(self, now: float) -> None:
        """Remembers that the part came up: what dies later is worth a restart."""
        if self.came_up:
            return
        if pidfile := self.part.pidfile:
            self.came_up = Path(pidfile).exists()
        else:
            self.came_up = self.is_alive and now - self.starts[-1] > UP_AFTER_S

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None


class Supervisor:
    """The parts of one stack."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._warm_up: Thread | None = None
        self._parts: dict[str, _Running] = {}
        self._remove: list[Path] = []

    def start(self, part: Part) -> None:
        """Starts a part in a session, and so in a process group, of its own."""
        running = self._parts.get(part.name)
        process = self._spawn(part)
        if running is None:
            running = self._parts[part.name] = _Running(part, process)
        running.process = process
        running.start_again_at = None
        running.starts.append(time.monotonic())
        self._write_down()

    def warm_up(self) -> None:
        """Begins to import what workers need, where they are forks."""
        if not WARM:
            return
        self._warm_up = Thread(target=import_for_workers)
        self._warm_up.start()

    def remove_at_end(self, path: Path) -> None:
        """Removes a folder outside the stack's own when everything is stopped."""
        self._remove.append(path)

    def look(self) -> Iterator[Gone]:
        """Restarts what died; yields the parts that died too often or are not to be restarted."""
        now = time.monotonic()
        for name, running in list(self._parts.items()):
            running.notice_if_up(now)
            if running.is_alive:
                continue
            if running.start_again_at is None:
                _kill_group(running.process.pid)  # what it left behind: pool children, commands
                delay = self._restart_delay(running, now)
                if delay is None:
                    del self._parts[name]
                    yield Gone(name, running.process.wait(), running.part.log)
                    continue
                running.start_again_at = now + delay
            if now >= running.start_again_at:
                self.start(running.part)

    def stop(self, grace_s: float, hurry: Callable[[], bool]) -> None:
        """Ends all parts: workers first and the broker last.

        SIGKILL comes after the grace, or when there is reason to hurry.
        """
        for rank in sorted(Rank, reverse=True):
            group = [running for running in self._parts.values() if running.part.rank is rank]
            end = time.monotonic() + (BROKER_GRACE_S if rank is Rank.BROKER else grace_s)
            for running in group:
                if running.is_alive:
                    running.process.terminate()
            while any(running.is_alive for running in group) and time.monotonic() < end:
                if rank is not Rank.BROKER and hurry():
                    break
                time.sleep(0.02)
            for running in group:
                _kill_group(running.process.pid)
                running.process.wait()
        for path in self._remove:
            shutil.rmtree(path, ignore_errors=True)
        self._parts.clear()
        self._write_down()

    def _spawn(self, part: Part) -> subprocess.Popen[bytes] | Fork:
        if self._warm_up is not None and part.module in WARM:
            self._warm_up.join()  # a fork copies one thread only, and this one
            return fork_for(part)
        # A broker that loses its supervisor still writes its file; nobody waits for workers then.
        last_signal = signal.SIGTERM if part.rank is Rank.BROKER else signal.SIGKILL
        with Path(part.log).open("ab") as log:
            return subprocess.Popen(  # noqa: S603 (our owner's argv, no shell)
                part.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **part.env},
                start_new_session=True,
                preexec_fn=die_with_parent(last_signal),
            )

    def _restart_delay(self, running: _Running, now: float) -> float | None:
        while running.starts and running.starts[0] < now - RESTART_WINDOW_S:
            running.starts.popleft()
        starts = len(running.starts)
        is_broken = starts > (MAX_RESTARTS if running.came_up else 1)
        if not running.part.restart or is_broken:
            return None
        return min(RESTART_DELAY_MAX_S, float(0.1 * 2**starts))

    def _write_down(self) -> None:
        pids = {name: running.process.pid for name, running in self._parts.items()}
        records = [Record(name, pid, birth_of(pid)) for name, pid in pids.items()]
        write_records(self._folder, records)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies
        return


class _Commands:
    """The owner's commands, read without waiting."""

    def __init__(self) -> None:
        self._buffer = b""
        self.owner_is_gone = False
        os.set_blocking(sys.stdin.fileno(), False)

    def read(self) -> Iterator[dict[str, Any]]:
        while not self.owner_is_gone:
            try:
                data = os.read(sys.stdin.fileno(), 65536)
            except BlockingIOError:
                break
            self.owner_is_gone = not data
            self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            yield json.loads(line)

    def hurry(self) -> bool:
        """Whether the owner went away, or said stop once more."""
        return any("stop" in command for command in self.read()) or self.owner_is_gone


def _tell(event: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
    except OSError:  # the owner is gone; the lifeline says so too
        return


def supervise(folder: Path) -> None:
    """Does what the owner says until it says stop, goes away, or a signal comes."""
    supervisor = Supervisor(folder)
    commands = _Commands()
    told_to_end: list[int] = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda signum, _frame: told_to_end.append(signum))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while not told_to_end and not commands.owner_is_gone:
            selector.select(_TICK_S)
            for command in commands.read():
                if "start" in command:
                    supervisor.start(decode_part(command["start"]))
                elif "warm_up" in command:
                    supervisor.warm_up()
                elif "remove" in command:
                    supervisor.remove_at_end(Path(command["remove"]))
                elif "stop" in command:
                    supervisor.stop(float(command["stop"]), commands.hurry)
                    _tell({"stopped": True})
                    return
            for gone in supervisor.look():
                _tell({"gone": {"name": gone.name, "code": gone.code, "log": gone.log}})
    supervisor.stop(ORPHAN_GRACE_S, hurry=lambda: False)


def main() -> NoReturn:
    """Runs as `python -m batchq.embedded.supervisor FOLDER LOCK`.

    LOCK is the descriptor of the folder's lock, taken by the owner and held from now on by both.
    """
    lock = int(sys.argv[2])
    os.set_inheritable(lock, False)  # noqa: FBT003 (takes no keyword)
    try:
        supervise(Path(sys.argv[1]))
    except Forked as forked:  # we are the child
        os.close(lock)
        part = forked.part
    else:
        sys.exit(0)
    become(part)


if __name__ == "__main__":
    main()
