"""Reads what the address of a page asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from batchq.errors import UsageError

MOST_CHARS = 500
LARGEST = 2**31 - 1

Query = Mapping[str, str]


def read_query(
    arguments: Mapping[str, Sequence[bytes]], known: Sequence[str], *, keep_empty: bool = False
) -> dict[str, str]:
    """The arguments that a page knows, each once; the last one counts, an empty one is none.

    Raises UsageError for one that is no UTF-8, or too long.
    """
    found = {}
    for name in known:
        values = arguments.get(name)
        if not values:
            continue
        try:
            text = values[-1].decode()
        except UnicodeDecodeError:
            raise UsageError(f"{name} is no UTF-8") from None
        if len(text) > MOST_CHARS or "\0" in text:
            raise UsageError(f"{name} has over {MOST_CHARS} characters, or a NUL")
        if text.strip() or keep_empty:
            found[name] = text.strip()
    return found


def number(query: Query, name: str, default: int, *, least: int = 0, most: int = LARGEST) -> int:
    """A whole number; raises UsageError for anything else."""
    text = query.get(name)
    if text is None:
        return default
    # `int` takes digits of all scripts, and as many as there are.
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most):
        raise UsageError(f"{name} is a whole number from {least} to {most}, not {text[:40]!r}")
    return int(text)


def choice(query: Query, name: str, known: Sequence[str]) -> str:
    """One of some words, or "" for none; raises UsageError for anything else."""
    text = query.get(name, "")
    if text and text not in known:
        raise UsageError(f"{name} is one of {', '.join(known)}, not {text[:40]!r}")
    return text


def address(path: str, query: Mapping[str, object]) -> str:
    """A path with arguments; those that are empty are left out."""
    given = {name: value for name, value in query.items() if value not in ("", None)}
    return f"{path}?{urlencode(given)}" if given else path
