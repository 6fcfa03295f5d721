"""What is in flight: claims, outcomes of open batches, counters; in Redis or in memory."""
