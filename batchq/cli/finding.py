"""One thing that `batchq doctor` looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found. `advice` says what to do if it is not ok."""

    name: str
    ok: bool
    detail: str
    advice: str = ""
