"""The cache of answers in Redis."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import redis

from batchq.broker.redisclient import open_client
from batchq.engine.answers import decode_answer, decode_answers, encode_answer
from batchq.errors import StoreError
from batchq.ports import KeptAnswer
from batchq.settings import redis_client_url

TIMEOUT_S = 5.0
INDEX = "batchq:cache"  # a sorted set: key -> when it was put
PREFIX = "batchq:cache:"
MANY = 100  # answers in one reply: an answer may be long, and Redis serves others meanwhile


class RedisCache:
    """Implements ports.Cache.

    `keep_s` is how long an answer stays; with `most`, only the newest so many stay, so that a
    Redis which carries runs as well does not fill up.
    """

    def __init__(
        self, client: redis.Redis, *, keep_s: int | None = None, most: int | None = None
    ) -> None:
        self._client = client  # with decode_responses
        self._keep_s = keep_s
        self._most = most

    def get(self, key: str) -> KeptAnswer | None:
        """See ports.Cache."""
        with _explained():
            text = self._client.get(PREFIX + key)
        return None if text is None else decode_answer(str(text))

    def get_many(self, keys: Collection[str]) -> Mapping[str, KeptAnswer]:
        """See ports.Cache."""
        left = iter(keys)
        found: dict[str, KeptAnswer] = {}
        with _explained():
            while some := [*islice(left, MANY)]:
                texts: Any = self._client.mget([PREFIX + key for key in some])
                found |= decode_answers(zip(some, texts, strict=True))
        return found

    def put(self, key: str, answer: KeptAnswer) -> None:
        """See ports.Cache."""
        text = encode_answer(answer)
        with _explained():
            if self._most is None:
                self._client.set(PREFIX + key, text, ex=self._keep_s)
            else:
                self._put_bounded(key, text, answer.stored_at, self._most)

    def _put_bounded(self, key: str, text: str, now: float, most: int) -> None:
        with self._client.pipeline(transaction=False) as pipe:
            pipe.set(PREFIX + key, text, ex=self._keep_s)
            pipe.zadd(INDEX, {key: now})
            if self._keep_s is not None:
                pipe.zremrangebyscore(INDEX, "-inf", now - self._keep_s)
                pipe.expire(INDEX, self._keep_s)
            pipe.zcard(INDEX)
            count = int(pipe.execute()[-1])
        if count > most:
            oldest: Any = self._client.zpopmin(
                INDEX, count - most
            )  # typed for other protocols, too
            self._client.delete(*(PREFIX + name for name, _ in oldest))


def open_redis_cache(url: str) -> RedisCache:
    """Opens a cache in a Redis of its own: answers stay until that Redis drops them."""
    try:
        client = open_client(
            redis_client_url(url),
            wait_s=TIMEOUT_S,
            decode_responses=True,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
        )
    except ValueError as error:
        raise StoreError(f"BATCHQ_CACHE_URL cannot be read: {error}") from error
    return RedisCache(client)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise StoreError(
            f"cache in Redis: {error}. Check BATCHQ_CACHE_URL and that the server is up"
        ) from error
