"""A Redis result backend that loses no chord part and keeps no results that nobody reads."""

from __future__ import annotations

import logging
from typing import Any

from celery.backends.redis import RedisBackend
from celery.backends.redis import SentinelBackend as CelerySentinelBackend
from celery.result import GroupResult

from batchq.queue.deaths import DEATHS, note_death

log = logging.getLogger(__name__)


class Backend(RedisBackend):
    """Retries the chord part until it lands; stock Celery gives the whole chord up."""

    app: Any  # the stubs do not know it

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

    def mark_as_failure(  # type: ignore[override]  # the stub has other names
        self,
        task_id: str,
        exc: Exception,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> None:
        """Notes why the process of an item died, before its chord is told."""
        if isinstance(exc, DEATHS) and request is not None:
            note_death(self.app.services, request.task, request.args, exc)
        super().mark_as_failure(task_id, exc, traceback, request, **kwargs)

    def chord_error_from_stack(self, callback: Any, exc: Any = None) -> Any:
        """Sends the callback of a chord that failed, as that of one that did not.

        A header task fails only when its process dies, and the callback finds out by the ledger.
        An error callback would say the same, and make every message of the header half as long
        again.
        """
        log.warning("a chord failed, its batch is looked at all the same: %s", exc)
        return callback.delay()


class SentinelBackend(Backend, CelerySentinelBackend):
    """The same by way of Sentinels."""
