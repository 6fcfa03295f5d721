"""A comparison as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined

from batchq.cli.comparison import TITLES, value_text
from batchq.cli.output import money, seconds_text
from batchq.cli.versions import time_text
from batchq.compare import Change, Comparison, FieldChange, id_ranges

MAX_ITEMS = 500
"""Most items that a page shows in full: a browser becomes slow beyond it."""

_MAX_CHARS = 20_000  # of a value
_MAX_WORDS = 2_000  # beyond it a word by word difference takes seconds
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


class Piece(NamedTuple):
    """A part of a value; `is_marked` where the other value has something else."""

    text: str
    is_marked: bool


class FieldView(NamedTuple):
    """One field as the page shows it."""

    name: str
    old: list[Piece]
    new: list[Piece]


def comparison_page(seen: Comparison, *, only_changed: bool) -> str:
    """Writes the page; items beyond `MAX_ITEMS` are counted, and named in the lists."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["time"] = time_text
    environment.filters["seconds"] = seconds_text
    source = files("batchq.cli").joinpath("comparison.html.j2").read_text(encoding="utf-8")
    shown = seen.changes.items[:MAX_ITEMS]
    return environment.from_string(source).render(
        seen=seen,
        sides=(seen.left, seen.right),
        titles=TITLES,
        counts=[
            (change.value, TITLES[change], seen.changes.counts.get(change, 0))
            for change in Change
            if not (only_changed and change is Change.SAME)
        ],
        only_changed=only_changed,
        only_left=id_ranges(seen.items.only_left),
        only_right=id_ranges(seen.items.only_right),
        details=[(item, [_view(field) for field in item.fields]) for item in shown],
        hidden=len(seen.changes.items) - len(shown),
        groups=[(TITLES[change], id_ranges(seen.changes.ids(change))) for change in Change],
        money=money,
    )


def _view(field: FieldChange) -> FieldView:
    values = (field.old, field.new)
    is_text = all(isinstance(value, str) for value in values)  # as it is, with its line breaks
    old, new = (_readable(str(value) if is_text else value_text(value)) for value in values)
    return FieldView(field.field, *_difference(old, new))


def _readable(text: str) -> str:
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}…"


def _difference(old: str, new: str) -> tuple[list[Piece], list[Piece]]:
    """Marks the words in which two texts differ; those of very long ones are not told apart."""
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


def _pieces(words: list[str], spans: Iterator[tuple[str, int, int]]) -> Iterator[Piece]:
    for tag, start, end in spans:
        if start < end:
            yield Piece("".join(words[start:end]), is_marked=tag != "equal")
