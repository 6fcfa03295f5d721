"""The Celery app, for `celery -A batchq worker`; configured by BATCHQ_* and batchq.toml."""

from __future__ import annotations

from batchq.errors import UsageError
from batchq.queue.app import make_app
from batchq.settings import load_settings

try:
    app = make_app(load_settings())
except UsageError as error:  # Celery would show a traceback of our import
    raise SystemExit(f"batchq: {error}") from error
