"""A Redis result backend that loses no chord part and keeps no results that nobody reads."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend
from celery.result import GroupResult


class Backend(RedisBackend):
    """Retries the chord part until it lands; stock Celery gives the whole chord up."""

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Saves a header that has groups in it.

        Of any other, stock Celery saves nothing, but subscribes to its results and keeps them in
        memory until they come: for ever, since ours are ignored.
        """
        results = header_result_args[1]
        if not isinstance(results, list) or any(isinstance(one, GroupResult) for one in results):
            super().apply_chord(header_result_args, body, **kwargs)

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: Any = None, **kwargs: Any
    ) -> None:
        """Counts a finished header task, with the backend's own retry policy around it."""
        count = super().on_chord_part_return
        self.ensure(lambda: count(request, state, result, propagate, **kwargs), ())
