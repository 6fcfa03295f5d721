"""Notes why a pool process died, at once: the process that ran the item cannot say it any more."""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError

from batchq.engine.losses import MAX_STARTS, given_up
from batchq.engine.measure import peak_of, peak_of_children
from batchq.errors import BatchqError
from batchq.host.memory import oom_kills
from batchq.host.vitals import Vitals
from batchq.outcome import ItemError, Measured
from batchq.queue import heart
from batchq.queue.message import RUN_ITEM, decode_message

if TYPE_CHECKING:
    from batchq.services import Services

log = logging.getLogger(__name__)

DEATHS = (WorkerLostError, TimeLimitExceeded)
_SIGNAL = re.compile(r"signal (\d+)")
_STATUS = re.compile(r"exitcode (\d+)")
_CRASHES = {
    signal.SIGSEGV: "a segmentation fault",
    signal.SIGBUS: "a bus error",
    signal.SIGILL: "an illegal instruction",
    signal.SIGFPE: "an arithmetic fault",
    signal.SIGABRT: "an abort",
}

_killed_before = oom_kills()
_peak_before = peak_of_children()


def note_death(services: Services, name: str, arguments: Any, error: BaseException) -> None:
    """Fails the item that a process died of, or lets it run again at once if it has tries left.

    A job has no second try unless its manifest says so; any item is given up at its third death.
    """
    if name != RUN_ITEM or not arguments:
        return
    try:
        _note(services, arguments[0], error)
    except (BatchqError, ValueError) as problem:
        log.warning("cannot note why a process died, its item is missed later: %s", problem)


def _note(services: Services, message: dict[str, Any], error: BaseException) -> None:
    ref, item = decode_message(message)
    spec = services.ledger.spec(ref.run, ref.step)
    lease = services.ledger.leases(ref.run, ref.step, ref.batch).get(ref.index)
    if lease is None:
        _bury_the_dead(services)
    is_late = isinstance(error, TimeLimitExceeded)  # its process is killed right after this
    if spec is None or lease is None or not (is_late or _is_dead_here(lease.owner)):
        return
    services.progress.end(ref, item.id)
    if is_late or lease.starts > min(spec.retry.max_retries, MAX_STARTS - 1):
        problem = ItemError("timeout" if is_late else "worker_lost", reason_of(error))
        log.error("item %s failed: %s", item.id, problem.message)
        now, pid = time.time(), heart.pid_here(lease.owner) or 0
        began = Vitals(services.settings.home).take(pid)
        peak = peak_of(pid) if is_late else _peak_of_the_dead()
        measured = Measured(round(now - (began or now), 3), peak_bytes=peak) if spec.stats else None
        outcome = given_up(item, problem, now, began=began, measured=measured)
        services.ledger.commit(ref, outcome)
    else:
        heart.bury(services, lease.owner)


def _bury_the_dead(services: Services) -> None:
    """Buries processes of this host that are dead: one died of an item that it had taken itself."""
    for name in services.ledger.alive():
        if _is_dead_here(name):
            heart.bury(services, name)


def _is_dead_here(owner: str) -> bool:
    """Whether a lease's owner is a process of this host that is gone."""
    pid = heart.pid_here(owner)
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def reason_of(error: BaseException) -> str:
    """Why a process died, for people."""
    global _killed_before
    if isinstance(error, TimeLimitExceeded):
        return f"its process was killed: it did not stop at its time limit ({error.args[0]:g} s)"
    text = str(error)
    if found := _SIGNAL.search(text):
        number = int(found[1])
        if number == signal.SIGKILL:
            now = oom_kills()
            is_memory, _killed_before = now > _killed_before, now
            if is_memory:
                return "its process was killed: the machine was out of memory (SIGKILL)"
            return (
                "its process was killed (SIGKILL), by somebody or for want of memory: look at "
                "the kernel's log"
            )
        crash = _CRASHES.get(signal.Signals(number), "a signal")
        return f"its process died of {crash} ({signal.Signals(number).name})"
    if found := _STATUS.search(text):
        return f"its process ended itself with exit status {found[1]}"
    return f"its process died: {text}"


def _peak_of_the_dead() -> int:
    """The peak of the memory of the child that died last, if none before it had a higher one."""
    global _peak_before
    now, before = peak_of_children(), _peak_before
    _peak_before = now
    return now if now > before else 0
