"""What becomes of one item and of one batch: the runner, its calls, and pure decisions."""
