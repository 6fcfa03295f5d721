"""The pages: runs, items, failures, comparisons and limits, in Flower or without it."""
