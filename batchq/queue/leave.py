"""Ends a worker that was told to: calls in flight get a grace, and what is left is handed back."""

from __future__ import annotations

import logging
import mmap
import multiprocessing
import os
import shutil
import signal
import threading
from typing import TYPE_CHECKING, Any

from billiard.process import active_children
from celery import bootsteps
from celery.signals import worker_shutting_down

from batchq.errors import QueueError
from batchq.queue import heart

if TYPE_CHECKING:
    from batchq.services import Services

log = logging.getLogger(__name__)

HAND_BACK_S = 2.0
EXIT_BROKEN_OFF = 1


_word: mmap.mmap | None = None  # the processes of a pool see it, too, as far as they are forks


def is_leaving() -> bool:
    """Whether the worker of this process was told to end."""
    return _word is not None and _word[0] != 0


class LeaveStep(bootsteps.StartStopStep):
    """Gives Celery's warm shutdown, which waits for ever, an end.

    SIGTERM and Ctrl-C let the worker take nothing more and finish what it runs. After `grace_s`, or
    when it is told once more, the process ends, and the items it held are free for others at once.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:
        global _word
        _word = mmap.mmap(-1, 1)  # before the pool is started
        self._app = worker.app
        self._leaving = threading.Event()
        self._hurry = threading.Event()

    def start(self, _worker: Any) -> None:
        """Listens for the word."""
        # Now, for the word comes in a signal's handler, where gevent lets no thread be started.
        threading.Thread(target=self._break_off, name="batchq-leave", daemon=True).start()
        worker_shutting_down.connect(self._told, weak=False)

    def _told(self, **_: Any) -> None:
        if _word is not None:
            _word[0] = 1
        (self._hurry if self._leaving.is_set() else self._leaving).set()

    def _break_off(self) -> None:
        self._leaving.wait()
        grace_s = self._app.settings.grace_s
        told = self._hurry.wait(grace_s)
        why = "told twice to end" if told else f"not done within {grace_s:g} s"
        log.warning("%s: what is in flight is handed back", why)
        children = [child.pid for child in active_children() if child.pid]
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        # Redis may be away, too, and then nobody waits for it.
        back = threading.Thread(
            target=_hand_back, args=(self._app.services, [os.getpid(), *children]), daemon=True
        )
        back.start()
        back.join(HAND_BACK_S)
        _remove_temporary()
        os._exit(EXIT_BROKEN_OFF)


def _hand_back(services: Services, pids: list[int]) -> None:
    try:
        for name in services.ledger.alive():
            if heart.pid_here(name) in pids:
                heart.bury(services, name)
    except QueueError as error:
        log.warning("others will find out by themselves: %s", error)


def _remove_temporary() -> None:
    """Does what `os._exit` leaves out: the pool's folder for temporary files."""
    folder = multiprocessing.current_process()._config.get("tempdir")  # type: ignore[attr-defined]
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
