"""What all processes counted, in Redis, for metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

import redis

from batchq.ledger import keys
from batchq.ledger.connection import or_queue_error

KEEP_S = 30 * 24 * 3600
KEEP_WORKER_S = 3600


class RedisTallies:
    """Adds up counts over all hosts and restarts; `worker` names those of one pool's processes."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    @or_queue_error
    def add(self, grown: Mapping[tuple[str, ...], float], *, worker: str = "") -> None:
        """Adds what a process counted; with `worker` to the counts of that one, too."""
        if not grown:
            return
        with self.client.pipeline() as pipe:  # all or nothing: a part would be counted twice
            for key, keep_s in ((keys.TALLY, KEEP_S), (_of(worker), KEEP_WORKER_S)):
                if key:
                    for name, amount in grown.items():
                        pipe.hincrbyfloat(key, json.dumps(name), amount)
                    pipe.expire(key, keep_s)
            pipe.execute()

    @or_queue_error
    def read(self, worker: str = "") -> dict[tuple[str, ...], float]:
        """All counts, or those of one worker's processes."""
        found = cast("dict[str, str]", self.client.hgetall(_of(worker) or keys.TALLY))
        return {tuple(json.loads(name)): float(amount) for name, amount in found.items()}


def _of(worker: str) -> str:
    return f"{keys.TALLY}:{worker}" if worker else ""
