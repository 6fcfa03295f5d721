"""Workers as forks of a process that has imported what they need.

An import of Celery and of what is ours takes a second of a core, and a stack has two workers or
more. A fork starts with all of it, also one that takes the place of a worker that died.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
from dataclasses import dataclass
from typing import NoReturn

from batchq.embedded.lifeline import die_with_parent
from batchq.embedded.parts import WORKER, Part

# On macOS the system's own libraries do not bear it.
WARM = frozenset({WORKER} if sys.platform.startswith("linux") else ())
"""The modules that are run in a fork."""

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_LATER = (
    *("celery.apps.worker", "celery.app.control", "celery.worker.consumer"),
    *("batchq.queue.tasks", "batchq.queue.advance"),
    "cffi.cparser",  # billiard ties the processes of its pool to their parent by it
)


def import_for_workers() -> None:
    """Imports what workers import at their start; an import that fails is left for them to tell."""
    for name in (*WARM, *_LATER):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    with contextlib.suppress(Exception):
        from batchq.outcome import Outcome
        from batchq.plan import Plan, StepSpec, prepare

        prepare(Plan, StepSpec, Outcome)
    # A pool collects before each fork: what is here now would be walked through by every process,
    # and its pages copied.
    gc.collect()
    gc.freeze()


@dataclass
class Fork:
    """A child process, with the methods of a Popen that are needed."""

    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        """Waits for its end; returns its exit code."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def terminate(self) -> None:
        """Sends SIGTERM, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


class Forked(BaseException):
    """Raised in the child of a fork: it leaves what its parent was doing, then runs `part`.

    So it ends as any Python does, with what is to be done at an exit.
    """

    def __init__(self, part: Part) -> None:
        self.part = part
        super().__init__(part.name)


def fork_for(part: Part) -> Fork:
    """Forks; raises Forked in the child."""
    tie = die_with_parent(signal.SIGKILL)
    sys.stdout.flush()
    # A signal that came before the child has handlers of its own would be lost in its parent's.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        pid = os.fork()
        if pid:
            return Fork(pid)
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.setsid()
    if tie is not None:
        tie()
    raise Forked(part)


def become(part: Part) -> NoReturn:
    """Runs a part's module as `python -P -m` does, with its environment and its log."""
    log = os.open(part.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((nothing, log, log)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    os.environ.update(part.env)
    paths = part.env.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in paths if path and path not in sys.path]
    sys.argv = [part.module, *part.argv]
    sys.exit(importlib.import_module(part.module).main())
