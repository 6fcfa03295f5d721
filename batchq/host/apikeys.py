"""Reads the keys of providers from the environment, the same way wherever one is looked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def read_api_key(variable: str, env: Mapping[str, str]) -> str:
    """Reads the key in a variable, or in the file that VARIABLE_FILE names.

    The file goes first, and is read anew each time: a process that runs already finds a mended key.
    Raises ValueError, which says what is wrong and never shows a key.
    """
    path = env.get(f"{variable}_FILE", "")
    try:
        key = Path(path).read_text("utf-8") if path else env.get(variable, "")
    except OSError as error:
        raise ValueError(f"cannot read {variable}_FILE: {error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"the file of {variable}_FILE is no text") from None
    key = key.strip()
    if not key:
        where = f"file of {variable}_FILE is empty" if path else f"variable {variable} is not set"
        raise ValueError(f"the {where}")
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the value of {variable} cannot be a key")
    return key
