"""One look at a time: pages that many people have open are read once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

KEEP_S = 1.0
"""How old may be what a page shows: who has it open asks every two seconds."""
_MOST = 500
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read for a page, as JSON, and its name, which changes with it."""

    told: dict[str, Any]
    text: bytes
    tag: str


class Looker:
    """Reads in threads, each page once for all who ask at the same time, and again after a second.

    What costs long is kept for longer, so that no page keeps a thread busy all the time.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="pages")
        self._kept: OrderedDict[str, tuple[float, asyncio.Future[Seen]]] = OrderedDict()

    async def look(self, name: str, read: Callable[[], dict[str, Any]]) -> Seen:
        """What `read` returns, or returned a moment ago under this name; raises as it does."""
        until, future = self._kept.get(name, (0.0, None))
        if future is None or (future.done() and time.monotonic() > until):
            future = asyncio.get_running_loop().run_in_executor(self._threads, _read, read)
            self._keep(name, future)
        return await asyncio.shield(future)

    async def run(self, act: Callable[[], Any]) -> Any:
        """Does something in a thread; all that is kept may be old then."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, act)
        finally:
            self._kept.clear()

    def close(self) -> None:
        """Lets the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _keep(self, name: str, future: asyncio.Future[Seen]) -> None:
        began = time.monotonic()
        self._kept[name] = (0.0, future)
        self._kept.move_to_end(name)
        if len(self._kept) > _MOST:
            self._kept.popitem(last=False)

        def note(done: asyncio.Future[Seen]) -> None:
            if done.cancelled() or done.exception() is not None:
                return  # nobody is told an error that is over
            took = time.monotonic() - began
            if self._kept.get(name, (0.0, None))[1] is done:
                self._kept[name] = (time.monotonic() + max(KEEP_S, 3 * took), done)

        future.add_done_callback(note)


def _read(read: Callable[[], dict[str, Any]]) -> Seen:
    told = read()
    text = json.dumps(told, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace")
    return Seen(told, text, hashlib.blake2b(text, digest_size=12).hexdigest())
