"""Which runs have uploads to look after, and how far these are, in Redis."""

from __future__ import annotations

from typing import cast

import redis

from batchq.ledger import keys
from batchq.ledger.connection import move_on, or_queue_error
from batchq.plan import decode, encode
from batchq.progress import UploadsTold


class RedisUploads:
    """What coordinators share of uploads; the truth about them is in the run folder."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    @or_queue_error
    def follow(self, run: str, *, at_once: bool = False) -> None:
        """Lets a coordinator look at the uploads of a run, when it was going to or at once."""
        self.client.zadd(keys.UPLOADS, {run: 0}, nx=not at_once)

    @or_queue_error
    def look_again(self, run: str, at: float) -> None:
        """Says when to look next, after a look."""
        self.client.zadd(keys.UPLOADS, {run: at}, xx=True)

    @or_queue_error
    def leave(self, run: str) -> None:
        """Looks at the uploads of a run no more."""
        self.client.zrem(keys.UPLOADS, run)

    @or_queue_error
    def take_due(self, now: float, *, again_s: float) -> list[str]:
        """Takes the runs that are due; each comes up again after `again_s` by itself."""
        due = cast("list[str]", self.client.zrangebyscore(keys.UPLOADS, 0, now))
        return [run for run in due if move_on(self.client, keys.UPLOADS, run, now + again_s)]

    @or_queue_error
    def tell(self, run: str, told: UploadsTold) -> None:
        """Lets those who watch a run know how far the uploads of a step are."""
        self.client.hset(keys.uploads(run), str(told.step), encode(told).decode())

    @or_queue_error
    def told(self, run: str) -> tuple[UploadsTold, ...]:
        """How far the uploads of a run are, by step."""
        found = cast("dict[str, str]", self.client.hgetall(keys.uploads(run)))
        return tuple(decode(UploadsTold, found[step]) for step in sorted(found, key=int))
