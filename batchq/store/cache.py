"""The cache of answers in memory, and the one that a URL names."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from batchq.engine.answers import decode_answer, decode_answers, encode_answer
from batchq.ports import Cache, KeptAnswer


class MemoryCache:
    """Implements ports.Cache in one process: for tests, and to try a step."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def get(self, key: str) -> KeptAnswer | None:
        """See ports.Cache."""
        text = self._texts.get(key)
        return None if text is None else decode_answer(text)

    def get_many(self, keys: Collection[str]) -> Mapping[str, KeptAnswer]:
        """See ports.Cache."""
        return decode_answers((key, self._texts.get(key)) for key in keys)

    def put(self, key: str, answer: KeptAnswer) -> None:
        """See ports.Cache."""
        self._texts[key] = encode_answer(answer)


def open_cache(url: str) -> Cache:
    """Opens the cache at a SQLAlchemy URL of SQLite or PostgreSQL, or at a Redis URL.

    Raises StoreError if it is out of reach or no cache.
    """
    if url.startswith(("redis", "unix:")):
        from batchq.store.rediscache import open_redis_cache

        return open_redis_cache(url)
    from batchq.store.sqlcache import SqlCache  # SQLAlchemy takes 200 ms

    return SqlCache(url)
