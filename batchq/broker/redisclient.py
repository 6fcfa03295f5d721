"""Opens a client of a Redis, wherever its URL says that it is."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from batchq.broker.sentinels import SentinelUrl, is_sentinel, parse_sentinels

SENTINEL_TIMEOUT_S = 2.0
MOST_CONNECTIONS = 64
"""Of a process to one Redis. Commands are short: a thousand slots get along with these."""


def open_client(url: str, *, wait_s: float, **options: Any) -> redis.Redis:
    """Opens a client of a URL as redis-py reads it, or of the master that Sentinels name.

    The latter asks them again whenever it connects, so it finds a master that has changed. Where
    all connections are in use, a command waits for one, for `wait_s` at most: redis-py's own pool
    fails the 101st slot of a process.
    """
    options |= {"max_connections": MOST_CONNECTIONS, "timeout": wait_s}
    if not is_sentinel(url):
        return redis.Redis.from_pool(BlockingConnectionPool.from_url(url, **options))
    where = parse_sentinels(url)
    login = {"username": where.username or None, "password": where.password or None}
    options = {**options, **login, "db": where.database}
    open_sentinel: Any = Sentinel  # redis-py gives it no types
    sentinel = open_sentinel(where.hosts, sentinel_kwargs=sentinel_options(where), **options)
    client: redis.Redis = sentinel.master_for(where.master, connection_pool_class=_SentinelPool)
    return client


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the master that Sentinels name; who finds all in use waits for one."""


def sentinel_options(where: SentinelUrl) -> dict[str, Any]:
    """How to talk to a Sentinel: one that does not answer at once is passed over."""
    return {
        **dict(where.login),
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
    }
