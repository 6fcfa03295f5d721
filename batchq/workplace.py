"""Where the tasks of a process work: the run folder's files, the host's cache, told progress."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchq.engine.calling import NotNow
from batchq.engine.room import Room
from batchq.errors import TaskError
from batchq.host.memory import host_memory
from batchq.host.vitals import Vitals
from batchq.plan import Resources, is_remote
from batchq.ports import ItemRef
from batchq.store.names import safe_name

if TYPE_CHECKING:
    import diskcache

    from batchq.ledger import RedisLedger, RedisProgress

CACHE_FOLDER = "task-cache"
CACHE_BYTES = 10 * 2**30
TELL_EVERY_S = 0.5
SHORT_WAIT_S, SHORT_WAITS = 0.1, 20
LONG_WAIT_S = 1.1  # the sleep of an item looks in between whether its run still goes on
ELSEWHERE_S = 5.0


class DiskCache:
    """A cache in a folder, shared by processes and threads; implements `context.TaskCache`.

    Values are JSON or bytes, never pickles: who could write into the folder could else run code.
    """

    def __init__(self, folder: Path, size_limit: int = CACHE_BYTES) -> None:
        self._folder = folder
        self._size_limit = size_limit

    @cached_property
    def _cache(self) -> diskcache.Cache:
        import diskcache  # takes time that other tasks do not need

        class Disk(diskcache.Disk):  # type: ignore[misc]  # it has no types
            """Reads no pickles."""

            def fetch(self, mode: int, filename: str | None, value: Any, read: Any) -> Any:
                if mode == diskcache.core.MODE_PICKLE:
                    message = f"{filename} in the cache is a pickle, which nobody reads"
                    raise TaskError(message, kind="task")
                return super().fetch(mode, filename, value, read)

        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return diskcache.Cache(str(self._folder), size_limit=self._size_limit, disk=Disk)

    def get(self, key: str, default: Any = None) -> Any:
        """See context.TaskCache."""
        found = self._cache.get(key)
        if found is None:
            return default
        return found if isinstance(found, bytes) else json.loads(found)

    def set(self, key: str, value: Any, *, expire_s: float | None = None) -> None:
        """See context.TaskCache; raises TaskError for a value that is neither JSON nor bytes."""
        if isinstance(value, bytes | bytearray):
            kept: bytes | str = bytes(value)
        else:
            try:
                kept = json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                message = f"the cache keeps JSON and bytes: {key}: {error}"
                raise TaskError(message, kind="not_serializable") from error
        self._cache.set(key, kept, expire=expire_s)

    def fetch(self, key: str, make: Callable[[], Any], *, expire_s: float | None = None) -> Any:
        """See context.TaskCache; two processes that ask at the same time may both make it."""
        missing = object()
        found = self.get(key, missing)
        if found is missing:
            self.set(key, make(), expire_s=expire_s)
            found = self.get(key)
        return found


class LocalWorkplace:
    """Implements `context.Workplace` on a host's own disk."""

    def __init__(
        self,
        ledger: Callable[[], RedisLedger],
        progress: Callable[[], RedisProgress],
        home: Path,
    ) -> None:
        self._ledger = ledger
        self._progress = progress
        self._home = home
        self._vitals = Vitals(home)
        self._folders: dict[str, str] = {}
        self._told: dict[str, float] = {}

    @cached_property
    def cache(self) -> DiskCache:
        """See context.Workplace."""
        return DiskCache(self._home.absolute() / CACHE_FOLDER)

    def output_folder(self, ref: ItemRef, item_id: str) -> Path:
        """See context.Workplace."""
        if ref.run not in self._folders:
            self._folders[ref.run] = self._ledger().about(ref.run).get("folder", "")
        folder = self._folders[ref.run]
        if is_remote(folder) or not os.access(folder, os.W_OK):
            raise TaskError(
                f"`context.output` needs the run folder on a disk of this host; it is {folder}: "
                "return the data instead, or mount the folder here",
                kind="task",
            )
        return Path(folder) / "items" / safe_name(item_id) / f"{ref.step:02d}_files"

    def tell_progress(self, ref: ItemRef, item_id: str, done: float, total: float | None) -> None:
        """See context.Workplace; what comes too soon after the last word is not sent on."""
        now = time.monotonic()
        if now - self._told.get(item_id, -TELL_EVERY_S) < TELL_EVERY_S and done != total:
            return
        self._told = {item_id: now}  # a process has one item at a time, or a few
        self._progress().tell(ref, item_id, done, total)

    def end_progress(self, ref: ItemRef, item_id: str) -> None:
        """See context.Workplace."""
        self._progress().end(ref, item_id)

    def begin(self) -> None:
        """See context.Workplace."""
        self._vitals.begin()

    def end(self) -> None:
        """See context.Workplace."""
        self._vitals.end()

    @contextmanager
    def reserve(self, need: Resources, sleep: Callable[[float], None]) -> Iterator[None]:
        """See context.Workplace."""
        room = Room(self._home)
        waits = chain(repeat(SHORT_WAIT_S, SHORT_WAITS), repeat(LONG_WAIT_S))
        while not room.take(need, *self._whole(need)):
            sleep(next(waits))
        try:
            yield
        finally:
            room.give_back()

    def _whole(self, need: Resources) -> tuple[int, int]:
        """The slots and the memory of this host, if an item fits into them at all."""
        hosts: dict[str, tuple[int, int]] = {}
        for about in self._ledger().alive().values():
            if about["role"] == "worker":
                slots, _ = hosts.get(about["host"], (0, 0))
                hosts[about["host"]] = slots + about["slots"], about.get("memory", 0)
        here = socket.gethostname()
        slots, memory = hosts.get(here, (os.cpu_count() or 1, 0))
        memory = memory or host_memory()
        if need.slots <= slots and need.memory <= memory:
            return slots, memory
        others = [one for name, one in hosts.items() if name != here]
        if any(need.slots <= one[0] and need.memory <= one[1] for one in others):
            raise NotNow(ELSEWHERE_S)
        raise TaskError(
            f"it needs {need.slots} slots and {need.memory / 2**30:.1f} GiB of memory; this host "
            f"has {slots} and {memory / 2**30:.1f} GiB, and no other one has enough",
            kind="resources",
        )
