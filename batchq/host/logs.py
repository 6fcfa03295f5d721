"""What a line of a log is about, and lines as JSON for machines."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

FIELDS = ("run", "step", "batch", "item", "attempt")
"""What a line may be about; in JSON each is a field of its own."""

_about: ContextVar[Mapping[str, Any]] = ContextVar("batchq_log_about", default={})  # noqa: B039


@contextmanager
def log_context(**fields: Any) -> Iterator[None]:
    """Adds fields to every line that is logged within it, by this thread or greenlet."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def log_fields(**fields: Any) -> None:
    """Adds or changes fields until the end of the `log_context` around it; nothing without one."""
    if about := _about.get():
        _about.set({**about, **fields})


class JsonFormatter(logging.Formatter):
    """Writes a line of JSON: `at`, `level`, `logger`, `message`, what it is about, `error`."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats one line; never fails, whatever is in it."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_about.get(),
        }
        line.update({name: getattr(record, name) for name in FIELDS if hasattr(record, name)})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
