"""Makes pages out of what was read; all text in them is text, whatever it looks like."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import FunctionLoader
from markupsafe import Markup

from batchq.records import iso
from batchq.report.escaping import html_environment
from batchq.report.texts import number_text, took_text
from batchq.runs.compare import TITLES
from batchq.store.listing import MOST_LOOKED
from batchq.text.amounts import count, duration, money
from batchq.text.wordiff import Piece, difference
from batchq.version import __version__
from batchq.web.drawing import bar_parts, columns
from batchq.web.query import address

_KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


def static_files() -> dict[str, tuple[str, bytes]]:
    """The style sheet and the script: name -> content type and content."""
    found = {}
    for file in files("batchq.web").joinpath("static").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _KINDS:
            found[file.name] = (_KINDS[suffix], file.read_bytes())
    return found


class Templates:
    """The templates of the pages, read once."""

    def __init__(self, prefix: str, *, is_in_flower: bool = False) -> None:
        self._prefix = prefix
        contents = sorted(static_files().items())
        digest = hashlib.blake2b(digest_size=6)
        for name, (_, content) in contents:
            digest.update(name.encode() + content)
        self._version = digest.hexdigest()
        self._environment = html_environment(loader=FunctionLoader(_source))
        self._environment.filters.update(
            number=number_text,
            money=money,
            usd=usd_text,
            duration=duration,
            took=brief,
            time=time_tag,
            moment=lambda at: time_tag(iso(at)),
            pretty=pretty,
            breakable=breakable,
        )
        self._environment.globals.update(
            url=self.url,
            file=lambda name: f"{prefix}/batchq/files/{name}?v={self._version}",
            bar_parts=bar_parts,
            columns=columns,
            difference=value_difference,
            titles={change.value: title for change, title in TITLES.items()},
            count=count,
            most_looked=MOST_LOOKED,
            is_in_flower=is_in_flower,
            batchq_version=__version__,
        )

    def url(self, *parts: str, **query: object) -> str:
        """An address below the prefix; parts are escaped, arguments that are empty left out."""
        path = "/".join(quote(part, safe="@") for part in parts)
        return address(f"{self._prefix}/{path}", query)

    def render(self, template: str, **values: Any) -> str:
        """Writes a page."""
        return self._environment.get_template(f"{template}.j2").render(**values)


def _source(name: str) -> str:
    return files("batchq.web").joinpath("templates", name).read_text(encoding="utf-8")


def time_tag(text: str | None) -> Markup:
    """A time in UTC, which the script shows in the reader's own zone."""
    if not text:
        return Markup("")
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return Markup.escape(text)
    shown = at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}">{}</time>').format(text, shown)


def brief(seconds: float) -> str:
    """How long an item took, which may be thousandths of a second."""
    return f"{seconds * 1000:.0f} ms" if 0 <= seconds < 0.1 else took_text(seconds)


def usd_text(usd: float, unpriced_calls: int = 0) -> str:
    """Dollars of a single item, which may be millionths."""
    return f"${usd:.6f}" if 0 < usd < 0.001 and not unpriced_calls else money(usd, unpriced_calls)


def pretty(value: Any) -> str:
    """A value as people read it: text as it is, anything else as JSON on many lines."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def breakable(name: str) -> Markup:
    """A text whose names may be broken after an underscore."""
    return Markup("_<wbr>").join(name.split("_"))  # which escapes the pieces


def value_difference(change: Mapping[str, Any]) -> tuple[list[Piece], list[Piece]]:
    """The old and the new value of a field, in pieces; one that is not there is `(none)`."""
    old, new = (pretty(change[side]) if side in change else "(none)" for side in ("old", "new"))
    return difference(old, new)
