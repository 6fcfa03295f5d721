"""Rate limits and concurrency leases, over all hosts (Redis) or in one process (memory)."""

from batchq.limiter.memory import MemoryLimiter
from batchq.limiter.redis import RedisLimiter

__all__ = ["MemoryLimiter", "RedisLimiter"]
