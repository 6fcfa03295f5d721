"""A TCP proxy whose line can be cut: it stands between a worker and Redis, and wants no root."""

from __future__ import annotations

import asyncio
import ssl
import threading
from typing import Any


class Proxy:
    """Listens on a port of its own and passes everything on; cut, it passes nothing either way.

    With a context for TLS it speaks that towards its clients.
    """

    def __init__(self, target_port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self._tls = tls
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        started.wait(10)

    def cut(self) -> None:
        """Holds everything back, as a broken line does: nobody is told."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def mend(self, *, reset: bool = False) -> None:
        """Lets everything pass again; with `reset`, connections that were open are gone."""
        if reset:
            self._loop.call_soon_threadsafe(self._reset)
        self._loop.call_soon_threadsafe(self._open.set)

    def lead_to(self, target_port: int) -> None:
        """Leads to another server from now on; connections that were open are gone."""
        self._target_port = target_port
        self.mend(reset=True)

    def close(self) -> None:
        """Ends it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _reset(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._open.set()
        opened = asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        server = self._loop.run_until_complete(opened)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        server.close()
        self._reset()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._open.wait()
            there = await asyncio.open_connection("127.0.0.1", self._target_port)
            try:
                await self._exchange((reader, writer), there)
            finally:
                there[1].close()
        except (OSError, asyncio.CancelledError):
            pass  # Redis is away, or the line was reset: both ends see it closed
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _exchange(self, here: Any, there: Any) -> None:
        pumps = [
            asyncio.create_task(self._pump(here[0], there[1])),
            asyncio.create_task(self._pump(there[0], here[1])),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
