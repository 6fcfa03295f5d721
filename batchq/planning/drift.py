"""Finds what changed on disk since a plan was frozen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from batchq.manifest.checks import is_glob
from batchq.manifest.experiment import SOURCE
from batchq.plan import Plan
from batchq.text.files import find_prompt

SHOWN = 4


@dataclass(frozen=True, slots=True)
class Drift:
    """One file that is not what it was; `now` is empty if it is gone."""

    name: str
    before: str
    now: str
    is_input: bool = False

    def __str__(self) -> str:
        if not self.now:
            return f"{self.name} is gone"
        return f"{self.name} changed ({self.before[:SHOWN]} -> {self.now[:SHOWN]})"


def find_drift(plan: Plan) -> list[Drift]:
    """Compares the files that a plan was made from with what is there now.

    Inputs that are no file (`py:`, `generate:`, a glob) are not asked again: they may be slow, or
    give something else every time.
    """
    found = []
    for name, before in plan.hashes.items():
        path = _path(plan, name)
        if path is None:
            continue
        now = ""
        if path.is_file():
            with path.open("rb") as file:
                now = hashlib.file_digest(file, "sha256").hexdigest()
        if now != before:
            kind, _, value = name.partition(":")
            found.append(Drift(value or f"the {kind}", before, now, kind == "input"))
    return found


def _path(plan: Plan, name: str) -> Path | None:
    """The file that a hash is of; None for one that is not of a file."""
    if name == "manifest":
        return Path(plan.manifest_path)
    kind, _, value = name.partition(":")
    base = Path(plan.base_dir)
    if kind in ("prompt", "system"):
        return find_prompt(base, value)
    if kind == "input" and (value.startswith(("py:", "generate:", SOURCE)) or is_glob(value)):
        return None
    return base / value
