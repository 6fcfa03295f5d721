"""Sends events of tasks a few times a second, not with every task.

Celery sends what has gathered in each turn of a worker's loop: two or three round trips a task in
the process that feeds the slots. Who looks at tasks does not see the difference.
"""

from __future__ import annotations

from typing import Any

from celery.app.events import Events as CeleryEvents
from celery.events.dispatcher import EventDispatcher
from kombu.asynchronous import get_event_loop

EVERY_S = 0.25
MOST_EVENTS = 400
"""In one message."""


class Dispatcher(EventDispatcher):
    """Celery's, where it gathers events of tasks: it does so for longer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._is_due = False
        if kwargs.get("on_send_buffered") is not None:
            kwargs |= {"on_send_buffered": self._send_soon, "buffer_limit": MOST_EVENTS}
        super().__init__(*args, **kwargs)

    def _send_soon(self) -> None:
        loop = get_event_loop()
        if not self._is_due and loop is not None:
            self._is_due = True
            loop.call_later(EVERY_S, self._send_now)

    def _send_now(self) -> None:
        self._is_due = False
        if self.enabled:
            self.flush()


class Events(CeleryEvents):
    """Celery's, with that dispatcher."""

    dispatcher_cls = "batchq.queue.events:Dispatcher"
