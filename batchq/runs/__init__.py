"""Runs and their versions: made, found, compared, reused, run again."""
