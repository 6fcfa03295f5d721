"""Celery: the app, its tasks, chords, and the coordinator."""
