"""How far running items say they are, in Redis."""

from __future__ import annotations

from typing import cast

import redis

from batchq.ledger import keys
from batchq.ledger.connection import or_queue_error
from batchq.ports import ItemRef
from batchq.progress import ItemProgress

FORGET_AFTER_S = 24 * 3600


class RedisProgress:
    """Keeps what items tell until they end."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    @or_queue_error
    def tell(self, ref: ItemRef, item_id: str, done: float, total: float | None) -> None:
        """Keeps how far an item is, in place of what it said before."""
        key = keys.told(ref.run)
        with self.client.pipeline(transaction=False) as pipe:
            pipe.hset(key, f"{ref.step}:{item_id}", f"{done:g} {total or 0:g}")
            pipe.expire(key, FORGET_AFTER_S)
            pipe.execute()

    @or_queue_error
    def end(self, ref: ItemRef, item_id: str) -> None:
        """Forgets an item that has ended."""
        self.client.hdel(keys.told(ref.run), f"{ref.step}:{item_id}")

    @or_queue_error
    def of(self, run: str) -> tuple[ItemProgress, ...]:
        """What the running items of a run say, by name."""
        found = cast("dict[str, str]", self.client.hgetall(keys.told(run)))
        told = []
        for name, value in sorted(found.items()):
            step, _, item_id = name.partition(":")
            done, _, total = value.partition(" ")
            told.append(ItemProgress(int(step), item_id, float(done), float(total) or None))
        return tuple(told)
