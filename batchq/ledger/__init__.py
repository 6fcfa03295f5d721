"""What is in flight: claims, outcomes of open batches, counters; in Redis or in memory."""

from __future__ import annotations

from batchq.ledger.connection import connect
from batchq.ledger.memory import MemoryLedger
from batchq.ledger.redis import RedisLedger, summary_of

__all__ = ["MemoryLedger", "RedisLedger", "connect", "summary_of"]
