"""Rate limits and concurrency leases, over all hosts (Redis) or in one process (memory)."""
