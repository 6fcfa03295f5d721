"""Turns item ids into file names."""

from __future__ import annotations

import hashlib
import re
import unicodedata

MAX_BYTES = 100
"""Longest name in UTF-8; file systems take 255 with the prefixes and suffixes around it."""

_HASH_DIGITS = 12  # 48 bits: a million ids that differ in nothing else stay apart
_PLAIN = re.compile(r"[a-z0-9_-][a-z0-9._-]*")
_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|clock\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE
)


def safe_name(item_id: str) -> str:
    """Makes a file name of an id: one path component, different ids give different names.

    An id such as `4001` or `item_a` is its own name. Where anything has to be replaced, or where a
    file system of macOS or Windows would take the id for another one (`A` and `a`, composed and
    decomposed accents, `CON`), the name ends in `~` and a hash of the id. No id is left as it is
    if it holds a `~`, so a made name never meets an id that looks like it.
    """
    if _is_safe(item_id):
        return item_id
    digest = hashlib.sha256(item_id.encode("utf-8", "surrogatepass")).hexdigest()
    suffix = f"~{digest[:_HASH_DIGITS]}"
    readable = "".join(
        char if _is_kept(char) else "_" for char in unicodedata.normalize("NFC", item_id)
    ).strip(".")
    if _RESERVED.fullmatch(readable):
        readable = f"_{readable}"
    room = MAX_BYTES - len(suffix)
    return (readable.encode()[:room].decode(errors="ignore") or "_") + suffix


def _is_safe(item_id: str) -> bool:
    return (
        bool(_PLAIN.fullmatch(item_id) or _is_safe_unicode(item_id))
        and not item_id.endswith(".")
        and not _RESERVED.fullmatch(item_id)
        and len(item_id.encode()) <= MAX_BYTES
    )


def _is_safe_unicode(item_id: str) -> bool:
    """Whether all characters are kept and no other spelling of the id is the same file."""
    return (
        bool(item_id)
        and not item_id.startswith(".")
        and all(map(_is_kept, item_id))
        and unicodedata.normalize("NFC", item_id.casefold()) == item_id
    )


def _is_kept(char: str) -> bool:
    return char.isalnum() or char in "._-" or unicodedata.category(char) in ("Mn", "Mc")
