"""Measures how many calls a second one simulator answers: `python benchmarks/simulator.py`.

The simulator runs in a process of its own with no latency, no limits and no faults, and answers
a JSON Schema, each prompt new. The client writes requests to keep-alive connections and looks
only for the length of an answer, so that it costs as little as it can.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

SCHEMA = {
    "type": "object",
    "properties": {
        "summary": {"type": "string"},
        "topic": {"enum": ["text", "files", "network", "numbers"]},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": ["summary", "topic", "confidence"],
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "summary", "schema": SCHEMA}}
TEXT = "Summarise this module of the standard library in one sentence. " * 8


def request_bytes(number: int, run: int) -> bytes:
    messages = [{"role": "user", "content": f"{TEXT} Item {number} of run {run}."}]
    body = json.dumps({"model": "m", "messages": messages, "response_format": FORMAT}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer key\r\n"
        "User-Agent: python-requests/2.32\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client(asyncio.Protocol):
    """One keep-alive connection that sends its requests one after the other."""

    def __init__(self, requests: list[bytes], done: asyncio.Future[None]) -> None:
        self.requests = requests
        self.done = done
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.transport.write(self.requests.pop())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the simulator closed a connection"))

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        assert head.startswith(b"HTTP/1.1 200"), head
        self.received = b""
        if self.requests:
            self.transport.write(self.requests.pop())
        else:
            self.done.set_result(None)
            self.transport.close()


async def measure(port: int, calls: int, connections: int, run: int) -> float:
    """Makes the calls; returns how many a second were answered."""
    loop = asyncio.get_running_loop()
    shares = [
        [request_bytes(number, run) for number in range(first, calls, connections)]
        for first in range(connections)
    ]
    waiting = [loop.create_future() for _ in shares]
    started = time.perf_counter()
    for share, done in zip(shares, waiting, strict=True):
        await loop.create_connection(lambda s=share, d=done: Client(s, d), "127.0.0.1", port)
    await asyncio.gather(*waiting)
    return calls / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, "-m", "batchq.simulator"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        port = int(url.rpartition(":")[2])
        process = psutil.Process(server.pid)
        before = sum(process.cpu_times()[:2])
        rates = []
        for run in range(given.runs):
            rates.append(asyncio.run(measure(port, given.calls, given.connections, run)))
            print(f"run {run + 1}: {rates[-1]:,.0f} calls/s")
        cpu_us = (sum(process.cpu_times()[:2]) - before) / (given.calls * given.runs) * 1e6
        with urllib.request.urlopen(f"{url}/stats") as answer:
            accepted = json.load(answer)["accepted"]
    finally:
        server.terminate()
        server.wait()
    assert accepted == given.calls * given.runs
    print(
        f"median {statistics.median(rates):,.0f} calls/s, {cpu_us:.0f} us of CPU a call in the"
        f" simulator; load average {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
