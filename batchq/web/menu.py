"""Our entry in Flower's menu, which is found by its text: Flower has no interface for plug-ins."""

from __future__ import annotations

from html import escape
from importlib.util import find_spec
from pathlib import Path

MENU = "navbar.html"
_LIST, _END = '<ul class="app-nav navbar-nav">', "</ul>"
_ENTRY = '<li class="nav-item"><a class="nav-link" href="{}/runs">Runs</a></li>\n'


def with_entry(menu: str, prefix: str) -> str | None:
    """Flower's menu with an entry for the runs; None if this is not the menu that we know."""
    head, found, rest = menu.partition(_LIST)
    items, end, tail = rest.partition(_END)
    if not found or not end:
        return None
    return f"{head}{found}{items}{_ENTRY.format(escape(prefix))}{end}{tail}"


def has_known_menu() -> bool:
    """Whether the Flower that is installed has the menu that our entry goes into."""
    spec = find_spec("flower")
    if spec is None or spec.origin is None:
        return False
    menu = Path(spec.origin).with_name("templates") / MENU
    return menu.is_file() and with_entry(menu.read_text(encoding="utf-8"), "") is not None
