"""Opens a client of a Redis, wherever its URL says that it is."""

from __future__ import annotations

from typing import Any

import redis
from redis.sentinel import Sentinel

from batchq.sentinels import is_sentinel, parse_sentinels


def open_client(url: str, **options: Any) -> redis.Redis:
    """Opens a client of a URL as redis-py reads it, or of the master that Sentinels name.

    The latter asks them again whenever it connects, so it finds a master that has changed.
    """
    if not is_sentinel(url):
        return redis.Redis.from_url(url, **options)
    where = parse_sentinels(url)
    login = {"username": where.username or None, "password": where.password or None}
    options = {**options, **login, "db": where.database}
    open_sentinel: Any = Sentinel  # redis-py gives it no types
    sentinel = open_sentinel(where.hosts, sentinel_kwargs=where.sentinel_options(), **options)
    client: redis.Redis = sentinel.master_for(where.master)
    return client
