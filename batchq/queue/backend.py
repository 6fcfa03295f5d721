"""A Redis result backend that loses no chord part when Redis is away for a moment."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend


class Backend(RedisBackend):
    """Retries the chord part until it lands; stock Celery gives the whole chord up."""

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: Any = None, **kwargs: Any
    ) -> None:
        """Counts a finished header task, with the backend's own retry policy around it."""
        count = super().on_chord_part_return
        self.ensure(lambda: count(request, state, result, propagate, **kwargs), ())
