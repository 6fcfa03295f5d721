"""Redis is cut off in the middle of a reservation: nothing is charged twice, nobody is lost."""

from __future__ import annotations

import select
import socket
import threading
import uuid
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from batchq.endpoint import Limits, ProviderSpec, RateLimit
from batchq.errors import QueueError
from batchq.limiter import RedisLimiter
from batchq.limiter.keys import limit_key, provider_key
from batchq.ports import Reservation


class Proxy:
    """Stands before Redis; passes `cuts_left` questions on and cuts off the answers."""

    def __init__(self, path: str) -> None:
        self.path, self.cuts = path, 0
        self.cuts_left = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self.path)
            is_asked = False
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for one in ready:
                    data = one.recv(1 << 20)
                    if not data:
                        return
                    if one is client:
                        is_asked = b"EVALSHA" in data
                        server.sendall(data)
                    elif self.cuts_left and is_asked and not data.startswith(b"-"):
                        self.cuts_left, self.cuts = self.cuts_left - 1, self.cuts + 1
                        return
                    else:
                        client.sendall(data)


@pytest.fixture
def proxy(redis_client) -> Iterator[Proxy]:
    made = Proxy(redis_client.connection_pool.connection_kwargs["path"])
    yield made
    made.listener.close()


@pytest.fixture
def limiter(proxy, redis_client) -> RedisLimiter:
    """A limiter behind the proxy whose client tries a cut command once more."""
    password = redis_client.connection_pool.connection_kwargs.get("password")
    again = Retry(NoBackoff(), 1)
    client = redis.Redis(
        port=proxy.port,
        password=password,
        retry=again,
        retry_on_error=[redis.ConnectionError],
        socket_timeout=5,
    )
    return RedisLimiter(client)


def one_a_second() -> ProviderSpec:
    limits = Limits((RateLimit("rpm", "requests", 60, 60),), 2)
    return ProviderSpec(uuid.uuid4().hex, "openai", "http://x", "m", limits=limits)


def test_a_grant_whose_answer_was_lost_is_given_again_and_charged_once(
    limiter, proxy, redis_client
) -> None:
    provider = one_a_second()
    proxy.cuts_left = 1

    grant = limiter.reserve(Reservation(provider, "run/1", 100, 60))

    state = limit_key(provider_key(provider), "state")
    assert proxy.cuts == 1
    assert grant.is_granted
    assert int(redis_client.hget(state, "granted")) == 1
    assert limiter.reserve(Reservation(provider, "run/2", 100, 60)).wait_s <= 1.05


def test_a_waiter_whose_answer_was_lost_stands_in_line_once(limiter, proxy, redis_client) -> None:
    provider = one_a_second()
    limiter.reserve(Reservation(provider, "run/1", 100, 60))
    proxy.cuts_left = 1

    grant = limiter.reserve(Reservation(provider, "run/2", 100, 60))

    assert proxy.cuts == 1
    assert grant.blocked_by == "rpm"
    assert redis_client.zcard(limit_key(provider_key(provider), "queue")) == 1


def test_a_settlement_whose_answer_was_lost_counts_once(limiter, proxy, redis_client) -> None:
    limits = Limits((RateLimit("tpm", "tokens", 6000, 60),), 2)
    provider = ProviderSpec(uuid.uuid4().hex, "openai", "http://x", "m", limits=limits)
    limiter.reserve(Reservation(provider, "run/1", 1000, 60))
    state = limit_key(provider_key(provider), "state")
    before = float(redis_client.hget(state, "tpm"))
    proxy.cuts_left = 1

    limiter.settle(Reservation(provider, "run/1", 1000, 60), 1500)

    charged_s = (float(redis_client.hget(state, "tpm")) - before) / 1e6
    assert proxy.cuts == 1
    assert 4 < charged_s < 7  # 500 tokens at 100 a second, at a step of the grown burst
    assert redis_client.zcard(limit_key(provider_key(provider), "leases")) == 0


def test_a_redis_that_stays_away_is_said_in_words(limiter, proxy) -> None:
    provider = one_a_second()
    proxy.cuts_left = 10

    with pytest.raises(QueueError, match=f"limits of {provider.name}"):
        limiter.reserve(Reservation(provider, "run/1", 100, 60))
