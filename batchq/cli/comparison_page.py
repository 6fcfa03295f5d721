"""A comparison as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

from batchq.cli.comparison import value_text
from batchq.cli.output import money, seconds_text
from batchq.cli.versions import time_text
from batchq.report.escaping import html_environment
from batchq.runs.compare import TITLES, Change, Comparison, FieldChange, id_ranges
from batchq.text.wordiff import Piece, difference

MAX_ITEMS = 500
"""Most items that a page shows in full: a browser becomes slow beyond it."""


class FieldView(NamedTuple):
    """One field as the page shows it."""

    name: str
    old: list[Piece]
    new: list[Piece]


def comparison_page(seen: Comparison, *, only_changed: bool) -> str:
    """Writes the page; items beyond `MAX_ITEMS` are counted, and named in the lists."""
    environment = html_environment()
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
    old, new = (str(value) if is_text else value_text(value) for value in values)
    return FieldView(field.field, *difference(old, new))
