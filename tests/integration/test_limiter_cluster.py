"""The limiter's scripts on a server in cluster mode, which refuses keys of another slot."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from batchq.embedded.binary import find_redis_server
from batchq.limiter import RedisLimiter
from batchq.plan import Limits, ProviderSpec, RateLimit
from batchq.ports import Feedback, Reservation, Verdict


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


@pytest.fixture
def cluster_client(tmp_path: Path, wait_for) -> Iterator[redis.Redis]:
    """A client of a cluster of one node that has all slots."""
    port = free_port()
    server = subprocess.Popen(
        [find_redis_server(), "--port", port, "--bind", "127.0.0.1", "--cluster-enabled", "yes",
         "--cluster-port", free_port(), "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    client = redis.Redis(port=int(port), decode_responses=True)

    def is_up() -> bool:
        try:
            return b"cluster_state:ok" in cluster("INFO")
        except redis.ConnectionError:
            return False

    def cluster(*words: str) -> bytes:
        answer = client.execute_command("CLUSTER", *words)
        return answer if isinstance(answer, bytes) else str(answer).encode()

    def has_slots() -> bool:
        try:
            return bool(cluster("ADDSLOTSRANGE", "0", "16383"))
        except redis.ConnectionError:
            return False

    try:
        wait_for(has_slots, "the server takes all slots", 10)
        wait_for(is_up, "the cluster is up", 10)
        yield client
    finally:
        client.close()
        server.terminate()
        server.wait(10)


def test_all_that_a_provider_keeps_lies_in_one_slot(cluster_client: redis.Redis) -> None:
    rates = (RateLimit("rpm", "requests", 60, 60), RateLimit("tpm", "tokens", 6000, 60))
    spec = ProviderSpec("p", "openai", "http://x", "m", limits=Limits(rates, 2, adaptive=True))
    limiter = RedisLimiter(cluster_client)
    first = Reservation(spec, "run/1", 100, 60)

    granted = limiter.reserve(first)
    in_line = limiter.reserve(Reservation(spec, "run/2", 100, 60))
    elsewhere = limiter.reserve(Reservation(spec, "run/3", 100, 60, patience_s=0.1))
    limiter.settle(first, 150, Feedback(Verdict.REFUSED, "requests", 0.5))
    limiter.pause(spec, 2)
    [use] = limiter.usage()
    limiter.set_limits(use.key, rpm=30)

    assert granted.is_granted
    assert 0 < in_line.wait_s < elsewhere.wait_s
    assert (use.granted, use.refused, use.waiting) == (1, 1, {"run": 1})
    assert limiter.usage()[0].limit("rpm") == 30
