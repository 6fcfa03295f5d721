"""Strings that match a regular expression."""

from __future__ import annotations

# The standard library's own parser: private by name, but unchanged since Python 3.11, and the
# alternative is to write another parser of the same language.
import re._constants as tokens  # type: ignore[import-not-found, unused-ignore]
import re._parser as parser  # type: ignore[import-not-found, unused-ignore]
import string
from functools import lru_cache
from random import Random
from typing import Any

LETTERS = string.ascii_lowercase
PRINTABLE = string.ascii_letters + string.digits + " -_.,:;!?"
CATEGORIES = {
    tokens.CATEGORY_DIGIT: string.digits,
    tokens.CATEGORY_WORD: string.ascii_letters + string.digits + "_",
    tokens.CATEGORY_SPACE: " ",
    tokens.CATEGORY_NOT_DIGIT: LETTERS,
    tokens.CATEGORY_NOT_WORD: " -.,",
    tokens.CATEGORY_NOT_SPACE: LETTERS,
}


@lru_cache(maxsize=256)
def _parsed(pattern: str) -> Any:
    return parser.parse(pattern)


def matching_text(pattern: str, random: Random, growth: int = 4) -> str:
    """Writes a text for `pattern`; open repetitions are repeated up to `growth` times more.

    Lookarounds and word boundaries are not weighed, so the caller checks the text.

    Raises:
        re.error: if the pattern is not a regular expression.
    """
    return _write(_parsed(pattern), random, growth, {})


def _write(nodes: Any, random: Random, growth: int, groups: dict[int, str]) -> str:
    return "".join(_write_node(op, value, random, growth, groups) for op, value in nodes)


def _write_node(op: Any, value: Any, random: Random, growth: int, groups: dict[int, str]) -> str:
    match op:
        case tokens.LITERAL:
            return chr(value)
        case tokens.NOT_LITERAL:
            return random.choice([char for char in PRINTABLE if ord(char) != value])
        case tokens.ANY:
            return random.choice(LETTERS)
        case tokens.IN:
            return random.choice(_members(value))
        case tokens.BRANCH:
            return _write(random.choice(value[1]), random, growth, groups)
        case tokens.SUBPATTERN:
            number, _, _, inside = value
            text = _write(inside, random, growth, groups)
            if number is not None:
                groups[number] = text
            return text
        case tokens.GROUPREF:
            return groups.get(value, "")
        case tokens.ATOMIC_GROUP:
            return _write(value, random, growth, groups)
        case tokens.MAX_REPEAT | tokens.MIN_REPEAT | tokens.POSSESSIVE_REPEAT:
            low, high, inside = value
            times = random.randint(low, min(high, low + growth))
            return "".join(_write(inside, random, growth, groups) for _ in range(times))
    return ""  # anchors, boundaries and lookarounds write nothing


def _members(items: Any) -> list[str]:
    """The characters of a set such as `[a-z_]`, a sample of them if it is open."""
    is_negated = items[0][0] is tokens.NEGATE
    members: list[str] = []
    for op, value in items:
        if op is tokens.LITERAL:
            members.append(chr(value))
        elif op is tokens.RANGE:
            low, high = value
            members += map(chr, range(low, min(high, low + 255) + 1))
        elif op is tokens.CATEGORY:
            members += CATEGORIES[value]
    if is_negated:
        return [char for char in PRINTABLE if char not in set(members)] or ["\u00b7"]
    return members
