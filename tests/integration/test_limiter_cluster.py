"""The limiter on a Redis Cluster: all keys of a provider have one hash tag."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import redis

from batchq.embedded.binary import find_redis_server
from batchq.endpoint import Limits, ProviderSpec, RateLimit
from batchq.errors import QueueError
from batchq.ledger import RedisLedger, connect
from batchq.limiter import RedisLimiter
from batchq.limiter.keys import provider_key
from batchq.ports import Reservation


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[redis.RedisCluster]:
    """One node that holds all slots, and refuses what spans two of them as any node does."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, bus = one.getsockname()[1], other.getsockname()[1]
    options = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--save", ""]
    command = [str(find_redis_server()), "--port", str(port), "--bind", "127.0.0.1", *options]
    server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        _give_all_slots(port)
        yield redis.RedisCluster(host="127.0.0.1", port=port)
    finally:
        server.kill()
        server.wait()


def test_limits_are_asked_seen_and_set_on_a_cluster(cluster: redis.RedisCluster) -> None:
    limiter = RedisLimiter(cast("redis.Redis", cluster))
    limits = Limits((RateLimit("rpm", "requests", 1, 60),), 4)
    first, second = (
        ProviderSpec(name, "openai", f"http://{name}", "m", limits=limits)
        for name in ("one", "two")
    )

    granted = limiter.reserve(Reservation(first, "run/0", 10, 60))
    held = limiter.reserve(Reservation(first, "run/1", 10, 60))
    limiter.set_limits(provider_key(second), rpm=600)
    limiter.reserve(Reservation(second, "run/2", 10, 60))
    limiter.settle(Reservation(first, "run/0", 10, 60), 10)

    assert granted.wait_s == 0
    assert held.wait_s > 50
    use = {one.name: one for one in limiter.usage()}
    assert (use["one"].in_flight, use["two"].in_flight) == (0, 1)


def test_a_cluster_is_no_broker_and_says_so(cluster: redis.RedisCluster) -> None:
    port = cluster.get_primaries()[0].port
    ledger = RedisLedger(connect(f"redis://127.0.0.1:{port}/0", patience_s=1))

    with pytest.raises(QueueError, match="the broker is a part of a Redis Cluster"):
        ledger.register("r1", {"created_at": "1"}, [])


def _give_all_slots(port: int) -> None:
    deadline = time.monotonic() + 20
    with redis.Redis(port=port) as node:
        while True:
            try:
                if node.cluster("info")["cluster_state"] == "ok":
                    return
                if node.cluster("info")["cluster_slots_assigned"] == "0":
                    node.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            except redis.ConnectionError:
                assert time.monotonic() < deadline, "the node did not start"
            assert time.monotonic() < deadline, "the node has no slots"
