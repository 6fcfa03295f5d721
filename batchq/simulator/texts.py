"""Plausible sentences from the words of a prompt, and strings of a format or pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any
from uuid import UUID

from batchq.simulator.patterns import matching_text

READ_CHARS = 400
"""Only the end of a prompt is read: an item's own text usually comes last."""
LONGEST_WORD = 20
AROUND_WORDS = ".,;:!?()[]{}<>\"'`*_-#"
SPARE_WORDS = ("result", "value", "answer", "detail", "subject", "summary")
SHORT_NAMES = ("name", "title", "label", "topic", "tag", "keyword", "category", "id")
OPENINGS = ("This covers", "It describes", "The text is about", "It concerns", "This explains")
LINKS = ("and", "with", "for", "of", "in", "beside")
GROWTHS = (4, 0, 1, 12, 40)


def words_of(prompt: str) -> Sequence[str]:
    """Reads the different words of the end of a prompt."""
    found = [part.strip(AROUND_WORDS) for part in set(prompt[-READ_CHARS:].split())]
    words = sorted(word for word in found if 2 < len(word) <= LONGEST_WORD and word.isalpha())
    return words or SPARE_WORDS


def draw_text(schema: Mapping[str, Any], name: str, words: Sequence[str], random: Random) -> str:
    """Writes the string of the property `name`: of its pattern or format, else a sentence.

    Raises:
        ValueError: if no string of the pattern fits the length.
    """
    least = schema.get("minLength", 0)
    most = schema.get("maxLength")
    if most is not None and least > most:
        raise ValueError(f"minLength {least} is over maxLength {most}")
    if "pattern" in schema:
        return _of_pattern(schema["pattern"], least, most, random)
    if form := FORMATS.get(schema.get("format", "")):
        return form(words, random)
    text = _phrase(words, random) if _is_short(name) else _sentence(words, random)
    while len(text) < least:
        text += " " + _sentence(words, random)
    if most is not None and len(text) > most:
        text = text[:most].rstrip() or text[:most]
        text += "x" * (least - len(text))
    return text


def _is_short(name: str) -> bool:
    last = name.lower().rsplit("_", 1)[-1]
    return last in SHORT_NAMES


def _phrase(words: Sequence[str], random: Random) -> str:
    return " ".join(random.choice(words) for _ in range(random.randint(1, 3))).lower()


def _sentence(words: Sequence[str], random: Random) -> str:
    parts = [random.choice(OPENINGS), random.choice(words)]
    for _ in range(random.randint(1, 3)):
        parts += [random.choice(LINKS), random.choice(words)]
    return " ".join(parts) + "."


def _of_pattern(pattern: str, least: int, most: int | None, random: Random) -> str:
    check = re.compile(pattern)
    for growth in (*GROWTHS, least):
        for _ in range(8):
            text = matching_text(pattern, random, growth)
            is_long_enough = len(text) >= least
            if is_long_enough and (most is None or len(text) <= most) and check.search(text):
                return text
    raise ValueError(f"no text was found for the pattern {pattern!r} within its length")


def _date(words: Sequence[str], random: Random) -> str:  # noqa: ARG001 (all forms look alike)
    return f"20{random.randint(10, 29)}-{random.randint(1, 12):02}-{random.randint(1, 28):02}"


def _time(words: Sequence[str], random: Random) -> str:  # noqa: ARG001 (all forms look alike)
    return f"{random.randint(0, 23):02}:{random.randint(0, 59):02}:{random.randint(0, 59):02}Z"


def _ascii_word(words: Sequence[str], random: Random) -> str:
    word = random.choice(words).lower()
    return word if word.isascii() else random.choice(SPARE_WORDS)


def _ipv4(words: Sequence[str], random: Random) -> str:  # noqa: ARG001 (all forms look alike)
    return f"192.0.2.{random.randint(1, 254)}"  # a block that is reserved for documentation


FORMATS: Mapping[str, Callable[[Sequence[str], Random], str]] = {
    "date": _date,
    "time": _time,
    "date-time": lambda words, random: f"{_date(words, random)}T{_time(words, random)}",
    "duration": lambda _, random: f"PT{random.randint(1, 59)}M",
    "email": lambda words, random: f"{_ascii_word(words, random)}@example.org",
    "hostname": lambda words, random: f"{_ascii_word(words, random)}.example.org",
    "uri": lambda words, random: f"https://example.org/{_ascii_word(words, random)}",
    "ipv4": _ipv4,
    "uuid": lambda _, random: str(UUID(int=random.getrandbits(128), version=4)),
}
