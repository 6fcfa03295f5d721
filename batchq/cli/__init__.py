"""The command line, on click and rich."""

from __future__ import annotations

from batchq.cli.root import cli

__all__ = ["cli"]
