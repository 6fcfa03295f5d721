"""What is in flight: claims, outcomes of open batches, counters; in Redis or in memory."""

from __future__ import annotations

from batchq.ledger.budgets import RedisBudgets
from batchq.ledger.canaries import RedisCanaries
from batchq.ledger.connection import connect
from batchq.ledger.memory import MemoryBudgets, MemoryLedger
from batchq.ledger.outbox import RedisOutbox
from batchq.ledger.progress import RedisProgress
from batchq.ledger.redis import RedisLedger
from batchq.ledger.schedules import RedisSchedules
from batchq.ledger.tallies import RedisTallies
from batchq.ledger.uploads import RedisUploads
from batchq.ledger.worker import summary_of

__all__ = [
    "MemoryBudgets",
    "MemoryLedger",
    "RedisBudgets",
    "RedisCanaries",
    "RedisLedger",
    "RedisOutbox",
    "RedisProgress",
    "RedisSchedules",
    "RedisTallies",
    "RedisUploads",
    "connect",
    "summary_of",
]
