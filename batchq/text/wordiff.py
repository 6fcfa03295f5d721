"""Finds the words in which two texts differ."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import NamedTuple

_MAX_CHARS = 20_000  # of a text
_MAX_WORDS = 2_000  # beyond it a word by word difference takes seconds
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


class Piece(NamedTuple):
    """A part of a text; `is_marked` where the other text has something else."""

    text: str
    is_marked: bool


def difference(old: str, new: str) -> tuple[list[Piece], list[Piece]]:
    """Cuts two texts into pieces; long ones are cut short, very long ones are not told apart."""
    old, new = _readable(old), _readable(new)
    before: list[str] = _WORD.findall(old)
    after: list[str] = _WORD.findall(new)
    if max(len(before), len(after)) > _MAX_WORDS:
        return [Piece(old, is_marked=False)], [Piece(new, is_marked=False)]
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    codes = matcher.get_opcodes()
    return (
        list(_pieces(before, ((tag, start, end) for tag, start, end, _, _ in codes))),
        list(_pieces(after, ((tag, start, end) for tag, _, _, start, end in codes))),
    )


def _readable(text: str) -> str:
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}…"


def _pieces(words: list[str], spans: Iterator[tuple[str, int, int]]) -> Iterator[Piece]:
    for tag, start, end in spans:
        if start < end:
            yield Piece("".join(words[start:end]), is_marked=tag != "equal")
