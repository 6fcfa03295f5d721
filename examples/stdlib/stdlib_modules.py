"""Lists the modules of this machine's standard library, with their docstrings."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

DOCSTRING_LIMIT = 2_000


def list_modules() -> Iterator[dict[str, str]]:
    """Yields {"module", "docstring"} of every standard module that is installed here, by name.

    A docstring is read from the source without running it where there is one, since importing
    some modules (`antigravity`, `this`) does things.
    """
    for name in sorted(sys.stdlib_module_names):
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue  # not built for this platform
        docstring = _docstring(name, spec.origin or "")
        if docstring is not None:
            yield {"module": name, "docstring": docstring[:DOCSTRING_LIMIT]}


def _docstring(name: str, origin: str) -> str | None:
    if origin.endswith(".py"):
        tree = ast.parse(Path(origin).read_text("utf-8"))
        return ast.get_docstring(tree) or "(this module has no docstring)"
    try:
        return importlib.import_module(name).__doc__ or "(this module has no docstring)"
    except ImportError:
        return None  # its C library is not on this machine
