"""The reports on the first items of runs, in Redis, for whoever looks at a run from afar."""

from __future__ import annotations

import redis

from batchq.ledger import keys
from batchq.ledger.connection import or_queue_error
from batchq.plan import decode, encode
from batchq.progress import CanaryReport


class RedisCanaries:
    """Keeps one report a run."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    @or_queue_error
    def get(self, run: str) -> CanaryReport | None:
        """The report of a run; None while it has none."""
        text = self.client.get(keys.canary(run))
        return None if text is None else decode(CanaryReport, str(text))

    @or_queue_error
    def put(self, run: str, report: CanaryReport) -> None:
        """Keeps a report in place of an older one."""
        self.client.set(keys.canary(run), encode(report))
