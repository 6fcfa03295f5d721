"""What a worker makes of an item's message before it hands it to a slot."""

from __future__ import annotations

from typing import Any

from celery.worker import state
from celery.worker.request import Request as CeleryRequest

from batchq.queue.light import MAY_FEED


class Request(CeleryRequest):
    """Says to the slot whether it may go on by itself.

    Of what a slot takes by itself no events are sent, and a revoked task is not looked for.
    """

    _request_dict: dict[str, Any]

    def __init__(self, message: Any, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        eventer = kwargs.get("eventer")
        is_watched = (
            eventer and eventer.enabled and (not eventer.groups or "task" in eventer.groups)
        )
        self._request_dict[MAY_FEED] = not (is_watched or state.revoked or state.revoked_stamps)
