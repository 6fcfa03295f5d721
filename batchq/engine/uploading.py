"""Decides about uploads, the batches of a provider: what fits into one, when to look, when to stop.

Pure, so that every case can be tested.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from batchq.outcome import Usage

FIRST_LOOK_S, LAST_LOOK_S = 1.0, 60.0
RETRY_S, LONGEST_RETRY_S = 5.0, 600.0


def tag_of(run: str, step: int, number: int) -> str:
    """What an upload is called at its provider."""
    return f"{run}-{step}-{number}"


def line_id(tag: str, index: int) -> str:
    """What the line of an item is called."""
    return f"{tag}-{index}"


def index_of(tag: str, line: str) -> int | None:
    """The index of the item that a line is of; None if it is not of this upload."""
    start, _, index = line.rpartition("-")
    return int(index) if start == tag and index.isascii() and index.isdecimal() else None


def look_after_s(age_s: float) -> float:
    """How long after the last look the next one is, by the age of an upload."""
    return min(LAST_LOOK_S, max(FIRST_LOOK_S, age_s / 10))


def retry_after_s(tries: int) -> float:
    """How long to wait before a provider is asked again that did not answer or had no room."""
    return min(LONGEST_RETRY_S, RETRY_S * 2.0 ** min(tries, 10))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one upload may hold; None is any amount."""

    lines: int
    bytes: int
    tokens: int | None = None
    need_nusd: int | None = None
    need_tokens: int | None = None


@dataclass
class Load:
    """The lines of an upload as far as they fit.

    `full_by` names what the next one did not fit, `refused` is what that one would have needed.
    """

    bounds: Bounds
    indexes: list[int] = field(default_factory=list)
    bytes: int = 0
    need: Usage = Usage()
    full_by: str = ""
    refused: Usage = Usage()

    def add(self, index: int, size: int, need: Usage) -> bool:
        """Adds the line of an item, unless it does not fit."""
        total, bounds = self.need + need, self.bounds
        sides = (
            ("lines", len(self.indexes) + 1, bounds.lines),
            ("bytes", self.bytes + size, bounds.bytes),
            ("tokens", total.input_tokens, bounds.tokens),
            ("budget", total.cost_nusd, bounds.need_nusd),
            ("budget", total.tokens, bounds.need_tokens),
        )
        for name, amount, most in sides:
            if most is not None and amount > most:
                self.full_by, self.refused = name, need
                return False
        self.indexes.append(index)
        self.bytes += size
        self.need = total
        return True
