"""Says in one line that Celery refused a message.

Celery's own words are a traceback and the message whole, which may be an item's data, or 24 MB.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

_MOST_CHARS = 300


class OneLine(logging.Filter):
    """Shortens what Celery's consumer says of messages that it cannot read, or has no task for."""

    def __init__(self) -> None:
        super().__init__()
        # It brings the whole worker, which `submit` does not need.
        consumer: Any = import_module("celery.worker.consumer.consumer")
        self._known: dict[str, str] = {
            consumer.MESSAGE_DECODE_ERROR: "{}",
            consumer.INVALID_TASK_ERROR: "it is no task: {}",
            consumer.UNKNOWN_TASK_ERROR: "no task has this name: {}",
            consumer.UNKNOWN_FORMAT: "it is no task",
        }

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets everything pass; what is known in other words."""
        known = self._known.get(str(record.msg))
        if known is not None:
            why = " ".join(known.format(*_arguments(record)).split())
            record.msg, record.args = "refused a message: %s", (why[:_MOST_CHARS],)
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.ERROR, "ERROR"
        return True


def _arguments(record: logging.LogRecord) -> tuple[Any, ...]:
    return record.args if isinstance(record.args, tuple) else ()


def tell_refusals_in_a_line() -> None:
    """Sets it up, once for this process."""
    logger = logging.getLogger("celery.worker.consumer.consumer")
    if not any(isinstance(one, OneLine) for one in logger.filters):
        logger.addFilter(OneLine())
