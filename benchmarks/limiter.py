"""Time of one reserve and one settle on Redis, against a bare round trip on the same socket.

Run: python benchmarks/limiter.py [CALLS]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import redis

from batchq.embedded.binary import find_redis_server
from batchq.limiter import RedisLimiter
from batchq.plan import Limits, ProviderSpec, RateLimit

TARGET_MS = 0.3


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory(prefix="bq") as folder:
        socket = Path(folder) / "s"
        arguments = [find_redis_server(), "--port", "0", "--unixsocket", socket, "--save", ""]
        server = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, cwd=folder)
        try:
            client = redis.Redis(unix_socket_path=str(socket))
            wait_for(client)
            measure(client, calls)
        finally:
            server.terminate()
            server.wait()


def wait_for(client: redis.Redis) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
        else:
            return


def measure(client: redis.Redis, calls: int) -> None:
    rates = (RateLimit("rpm", "requests", 10**9, 60), RateLimit("tpm", "tokens", 10**12, 60))
    open_spec = ProviderSpec("open", "openai", "http://x", "m", limits=Limits(rates, 10**6))
    tight = (RateLimit("rpm", "requests", 1, 60), RateLimit("tpm", "tokens", 10**9, 60))
    tight_spec = ProviderSpec("tight", "openai", "http://x", "m", limits=Limits(tight, 10**6))
    limiter = RedisLimiter(client)
    limiter.reserve(tight_spec, "first", 100, 600)
    rows: list[tuple[str, Callable[[int], object]]] = [
        ("PING, the round trip alone", lambda _: client.ping()),
        ("reserve, granted", lambda n: limiter.reserve(open_spec, f"{n}", 1000, 600)),
        ("reserve, told to wait", lambda n: limiter.reserve(tight_spec, f"w{n}", 1000, 600)),
        ("settle, with a correction", lambda n: limiter.settle(open_spec, f"{n}", 1000, 700)),
    ]
    print(f"{calls} calls each, rpm + tpm + concurrency; target {TARGET_MS} ms")
    for name, call in rows:
        began = time.perf_counter()
        for number in range(calls):
            call(number)
        print(f"{name:28} {(time.perf_counter() - began) / calls * 1000:.3f} ms")


if __name__ == "__main__":
    main()
