"""An OpenAI-like server that answers each call after so long, and costs as little as it can.

    slow_server.py [--latency-ms 200] [--address 127.0.0.1]

Prints its URL. `GET /seen` tells of the calls since the last such question: how many, the most at a
time, and answers a second from the moment that a fifth of them were given until four fifths were.
A process of its own: it must not be what bounds a benchmark. Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import time

ANSWER = {
    "id": "a",
    "object": "chat.completion",
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "A number like any other."},
        }
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18},
}


def _http(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


ANSWER_BYTES = _http(json.dumps(ANSWER).encode())


class Seen:
    """What the server saw since it was asked last."""

    def __init__(self) -> None:
        self.answered: list[float] = []
        self.open = 0
        self.most = 0

    def tell(self) -> dict[str, float]:
        times = self.answered
        first, last = len(times) // 5, len(times) * 4 // 5
        span = times[last] - times[first] if last > first else 0.0
        steady = (last - first) / span if span else 0.0
        told = {"calls": len(times), "most": self.most, "steady_per_s": steady}
        self.answered, self.most = [], self.open
        return told


class Connection(asyncio.Protocol):
    """One keep-alive connection; clients send a request when they have the answer to the last."""

    def __init__(self, seen: Seen, latency_s: float) -> None:
        self.seen = seen
        self.latency_s = latency_s
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        if head.startswith(b"GET"):
            self.received = b""
            self.transport.write(_http(json.dumps(self.seen.tell()).encode()))
            return
        low = head.lower()
        at = low.find(b"content-length:")
        length = int(low[at + 15 :].partition(b"\r\n")[0]) if at >= 0 else 0
        if len(body) < length:
            return
        self.received = b""
        seen = self.seen
        seen.open += 1
        seen.most = max(seen.most, seen.open)
        asyncio.get_running_loop().call_later(self.latency_s, self.answer)

    def answer(self) -> None:
        self.seen.open -= 1
        self.seen.answered.append(time.monotonic())
        if not self.transport.is_closing():
            self.transport.write(ANSWER_BYTES)


async def serve(latency_s: float, address: str) -> None:
    seen = Seen()
    listener = socket.create_server((address, 0), backlog=2048)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(seen, latency_s), sock=listener
    )
    print(f"http://{address}:{listener.getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency-ms", type=float, default=200.0)
    parser.add_argument("--address", default="127.0.0.1")
    given = parser.parse_args()
    asyncio.run(serve(given.latency_ms / 1000, given.address))


if __name__ == "__main__":
    main()
