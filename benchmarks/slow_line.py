"""Lines to a server that are as long as one likes: each byte arrives so much later.

    slow_line.py TARGET_PORT DELAY_MS ADDRESS ...

Listens at the same port of each address, and passes on what comes to the target on this machine.
DELAY_MS is the way there and back. For machines whose kernel has no netem. Standard library only.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque


class End(asyncio.Protocol):
    """One end of a line; what it receives, the other end sends when it is due."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.loop = asyncio.get_running_loop()
        self.other: End | None = None
        self.transport: asyncio.Transport | None = None
        self.due: deque[tuple[float, bytes]] = deque()  # what is to be sent here; b"" closes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.due:
            self.loop.call_at(self.due[0][0], self.send)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.take(data)

    def connection_lost(self, _error: Exception | None) -> None:
        assert self.other is not None
        self.other.take(b"")

    def take(self, data: bytes) -> None:
        at = self.loop.time() + self.delay_s
        self.due.append((at, data))
        if len(self.due) == 1 and self.transport is not None:
            self.loop.call_at(at, self.send)

    def send(self) -> None:
        assert self.transport is not None
        now = self.loop.time() + 0.0002
        parts = []
        while self.due and self.due[0][0] <= now:
            parts.append(self.due.popleft()[1])
        if self.due:
            self.loop.call_at(self.due[0][0], self.send)
        if not self.transport.is_closing():
            self.transport.write(b"".join(parts))
            if b"" in parts:
                self.transport.close()


class Near(End):
    """The end that a client connects to; the far one is made for it."""

    def __init__(self, delay_s: float, port: int) -> None:
        super().__init__(delay_s)
        self.port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        far = End(self.delay_s)
        self.other, far.other = far, self
        self.task = self.loop.create_task(
            self.loop.create_connection(lambda: far, "127.0.0.1", self.port)
        )


async def serve(port: int, delay_ms: float, addresses: list[str]) -> None:
    loop = asyncio.get_running_loop()
    one_way_s = delay_ms / 2000
    for address in addresses:
        await loop.create_server(lambda: Near(one_way_s, port), address, port, backlog=1024)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
