"""The words for how mature a version is."""

from __future__ import annotations

import difflib
import re

from batchq.errors import UsageError

KNOWN_LABELS = ("draft", "alpha", "beta", "rc", "final", "deprecated")
DEFAULT_LABEL = "draft"
FINAL = "final"
"""A complete version with this label is read-only until it gets another one."""

_OWN_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_NEAR = 0.8


def check_label(word: str) -> str:
    """Returns a label that may be used: a known word, or an own one.

    Raises UsageError for what is no word, and for one that looks like a known word misspelt:
    `fnal` would be hidden where `final` is shown. `rc2` and `beta-eu` are own words.
    """
    if word in KNOWN_LABELS:
        return word
    if not _OWN_WORD.fullmatch(word):
        raise UsageError(
            f"{word!r} is no label: use {', '.join(KNOWN_LABELS)}, or an own word of up to 32 "
            "letters, digits, - and _ that starts with a letter"
        )
    near = difflib.get_close_matches(word.lower(), KNOWN_LABELS, n=1, cutoff=_NEAR)
    if near and word.isalpha():
        raise UsageError(
            f"{word!r} is no known label; did you mean {near[0]}? The known ones are "
            f"{', '.join(KNOWN_LABELS)}; an own word has to differ more"
        )
    return word
