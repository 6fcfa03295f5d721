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
from statistics import median

import redis

from batchq.embedded.binary import find_redis_server
from batchq.endpoint import Limits, ProviderSpec, RateLimit
from batchq.limiter import RedisLimiter
from batchq.ports import Reservation

TARGET_MS = 0.3
TURNS = 7


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 500
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
    limiter = RedisLimiter(client)
    rates = (RateLimit("rpm", "requests", 10**9, 60), RateLimit("tpm", "tokens", 10**12, 60))
    tight = (RateLimit("rpm", "requests", 1, 60), RateLimit("tpm", "tokens", 10**9, 60))
    free, full = (ProviderSpec(name, "openai", "http://x", "m", limits=Limits(given, 10**6))
                  for name, given in (("free", rates), ("full", tight)))  # fmt: skip

    def asked(provider: ProviderSpec, number: int) -> Reservation:
        return Reservation(provider, f"run/{number}", 1000, 600)

    limiter.reserve(asked(full, -1))
    rows: list[tuple[str, Callable[[int], object]]] = [
        ("PING, the round trip alone", lambda _: client.ping()),
        ("reserve, granted", lambda n: limiter.reserve(asked(free, n))),
        ("settle, with a correction", lambda n: limiter.settle(asked(free, n), 700)),
        ("reserve, told to wait", lambda n: limiter.reserve(asked(full, n))),
    ]
    times: dict[str, list[float]] = {name: [] for name, _ in rows}
    for turn in range(TURNS):
        for name, call in rows:
            began = time.perf_counter()
            for number in range(turn * calls, (turn + 1) * calls):
                call(number)
            times[name].append((time.perf_counter() - began) / calls * 1000)
    print(f"{TURNS} turns of {calls} calls each, rpm + tpm + concurrency; target {TARGET_MS} ms")
    ping = median(times[rows[0][0]])
    for name, took in times.items():
        verdict = "reached" if median(took) < TARGET_MS else "NOT REACHED"
        print(f"{name:28} {median(took):.3f} ms ({min(took):.3f} to {max(took):.3f}), "
              f"{median(took) / ping:.1f} PINGs  {verdict}")  # fmt: skip


if __name__ == "__main__":
    main()
