"""The Celery app, for `celery -A batchq worker`; configured by BATCHQ_* and batchq.toml."""

from __future__ import annotations

from batchq.queue.app import make_app
from batchq.settings import load_settings

app = make_app(load_settings())
