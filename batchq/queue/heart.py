"""Says that this process is alive, so that nobody else runs the items it holds."""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from batchq.errors import QueueError
from batchq.host.memory import host_memory
from batchq.ledger.keys import ALIVE
from batchq.queue.light import as_ordinary
from batchq.version import __version__

if TYPE_CHECKING:
    from batchq.services import Services

log = logging.getLogger(__name__)

LAST_PATIENCE_S = 1.0

_lock = threading.Lock()
_owner = ""
_pid = 0
_ended = threading.Event()
_main_pid = 0  # the worker itself, not a process of its pool


def owner(services: Services) -> str:
    """This process's name in leases; starts its heartbeat when first asked, also after a fork."""
    global _owner, _pid, _ended
    if _pid != os.getpid():
        with _lock:
            if _pid != os.getpid():
                name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
                beat(services, name, role="process")
                _ended = threading.Event()
                start(services, name, role="process", stop=_ended)
                _owner, _pid = name, os.getpid()
    return _owner


def pid_here(name: str) -> int | None:
    """The process of this host that has a name which `owner` made; None for any other name."""
    host, _, pid = name.rpartition("-")[0].rpartition("-")
    return int(pid) if host == socket.gethostname() and pid.isdecimal() else None


def disown() -> None:
    """Lets go of all that this process holds: what it claims from now on, it claims by a new name.

    For an item that failed by a fault, such as a Redis that was away for too long: nobody runs it,
    and while its holder is alive nobody else may.
    """
    global _pid
    with _lock:
        _ended.set()
        _pid = 0


def start(
    services: Services,
    name: str,
    *,
    role: str,
    queues: str = "",
    slots: int = 0,
    stop: threading.Event | None = None,
    more: Callable[[], Mapping[str, Any]] = dict,
) -> threading.Thread:
    """Beats in the background until the process ends or `stop` is set; `more` tells more of it."""
    global _main_pid
    if role != "process":
        _main_pid = os.getpid()
    ended = stop or threading.Event()
    every_s = services.settings.lease_ttl_s / 5

    def loop() -> None:
        while not ended.wait(every_s):
            try:
                beat(services, name, role=role, queues=queues, slots=slots, more=more())
                keep_counts(services)
            except QueueError as error:
                log.warning("no heartbeat: %s", error)

    thread = threading.Thread(target=loop, name="batchq-heart", daemon=True)
    thread.start()
    return thread


def bury(services: Services, name: str) -> None:
    """Says that a process is dead, for it cannot; so nobody waits for its next beat.

    What its slots had taken by themselves goes back. Of which of these items it died nobody knows:
    the next time each runs alone.
    """
    services.redis.delete(ALIVE + name)
    for queue, texts in services.bulk.hands_of(name).items():
        services.bulk.give_back(queue, [as_ordinary(text) for text in texts])


def keep_counts(services: Services) -> None:
    """Adds what this process counted to what all did; raises QueueError, and it counts later."""
    grown = services.tally.drain()
    try:
        services.tallies.add(grown, worker=_pool_of(services))
    except QueueError:
        services.tally.take_back(grown)
        raise


def keep_last_counts(services: Services) -> None:
    """Does so at the end of a process, which nobody waits for if Redis is away."""
    from batchq.services import build_services

    quick = build_services(services.settings, patience_s=LAST_PATIENCE_S)
    try:
        quick.tallies.add(services.tally.drain(), worker=_pool_of(services))
    except QueueError as error:
        log.info("the last counts are lost: %s", error)


def _pool_of(services: Services) -> str:
    """The worker whose pool this process is in, if that shows the counts of its processes."""
    is_shown = services.settings.metrics_port and os.getpid() != _main_pid
    return worker_name(os.getppid()) if is_shown else ""


def worker_name(pid: int) -> str:
    """The name by which a worker of this host is known to be alive."""
    return f"worker-{socket.gethostname()}-{pid}"


def beat(
    services: Services,
    name: str,
    *,
    role: str,
    queues: str = "",
    slots: int = 0,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Beats once."""
    about = {
        "role": role,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "version": __version__,
        "queues": queues,
        "slots": slots,
        "memory": host_memory(),
        **(more or {}),
    }
    services.ledger.beat(name, services.settings.lease_ttl_s, about)
