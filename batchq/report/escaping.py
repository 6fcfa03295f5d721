"""How all pages of HTML are filled: whatever stands in a value is shown as text."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, StrictUndefined


def html_environment(**options: Any) -> Environment:
    """An environment that escapes, and refuses names that nobody gave."""
    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options
    )
