"""The names of the queues; apart from the app, so that who only names them needs no Celery."""

from __future__ import annotations

CONTROL_QUEUE = "batchq.control"
DEFAULT_QUEUES = ("batchq.llm", "batchq.cpu")
