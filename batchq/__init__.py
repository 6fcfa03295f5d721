"""Runs large batches of LLM, API and CPU work from one YAML manifest, on Celery and Redis."""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
