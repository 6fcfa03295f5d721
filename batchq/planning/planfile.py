"""Plans that were shown and are kept, for a submit to run exactly what was shown."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchq.errors import UsageError
from batchq.plan import Plan, decode, encode
from batchq.planning.drift import Drift
from batchq.version import __version__

FOLDER = "plans"
KEPT = 50
"""How many plans a folder holds; the oldest make room."""

_ID = re.compile(r"[0-9a-f]{10}")
_SHOWN = 40
_NOT_WORK = frozenset({"hashes", "warnings", "steps"})
_ESTIMATES = frozenset(
    {"batches", "calls", "input_tokens", "output_tokens", "cost_usd", "duration_s", "bound_by"}
)


@dataclass(frozen=True, slots=True)
class KeptPlan:
    """A plan, and the command line that makes it again.

    `base` is the version that items are taken over from, empty where none are.
    """

    file: str
    choices: Mapping[str, Any]
    workers: int | None
    plan: Plan
    base: str = ""
    made_by: str = __version__


def keep(kept: KeptPlan, home: Path) -> str:
    """Writes a plan down; returns its id, which is the same for the same plan."""
    data = encode(kept)
    name = hashlib.sha256(data).hexdigest()[:10]
    folder = home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}"
    temporary.write_bytes(data)
    temporary.replace(folder / f"{name}.json")
    for old in _newest_first(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return name


def find(name: str, home: Path) -> KeptPlan:
    """Reads a plan that was kept.

    Raises UsageError for one that is not there, or that another version of batchq made: it may
    count, price or run things in another way.
    """
    path = home / FOLDER / f"{name}.json"
    if not _ID.fullmatch(name) or not path.is_file():
        known = ", ".join(one.stem for one in _newest_first(home / FOLDER)[:5])
        hint = f"the newest are {known}" if known else "`batchq plan FILE --out` keeps one"
        raise UsageError(f"no plan {name} is kept here; {hint}")
    data = path.read_bytes()
    try:
        made_by = json.loads(data)["made_by"]
        if made_by == __version__:
            return decode(KeptPlan, data)
    except (ValueError, KeyError, TypeError) as error:  # pydantic's are ValueErrors
        raise UsageError(f"{path}: this is no plan any more: make it anew") from error
    raise UsageError(
        f"plan {name} was made by batchq {made_by}, and this is {__version__}: plan it anew"
    )


def choices_of(kept: KeptPlan) -> dict[str, Any]:
    """What the command line chose, as it was: JSON has no tuples."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in kept.choices.items()
    }


def differences(before: Plan, now: Plan) -> list[str]:
    """What would run, or be sent, otherwise than in the plan before: pure.

    What was only estimated does not count.
    """
    found = [str(one) for one in _files(before.hashes, now.hashes)]
    old, new = (json.loads(encode(one)) for one in (before, now))
    for key in sorted({*old, *new} - _NOT_WORK):
        found += _told("", key, old.get(key), new.get(key))
    names = [[step["spec"]["name"] for step in plan["steps"]] for plan in (old, new)]
    if names[0] != names[1]:
        return [*found, f"steps: {', '.join(names[0])} -> {', '.join(names[1])}"]
    for was, step in zip(old["steps"], new["steps"], strict=True):
        place = f"{step['spec']['name']}: "
        for key in (key for key in step if key not in _ESTIMATES):
            found += _told(place, key, was.get(key), step[key])
    return found


def _files(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Drift]:
    for name in (*before, *(one for one in now if one not in before)):
        if before.get(name) != now.get(name):
            kind, _, value = name.partition(":")
            shown = value or f"the {kind}"
            yield Drift(shown, before.get(name, "none"), now.get(name, ""))


def _told(place: str, key: str, old: Any, new: Any) -> Iterator[str]:
    """One line for each value that differs, by its path."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _told(place, f"{key}.{name}", old.get(name), new.get(name))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from _told(place, f"{key}[{number}]", *pair)
    elif old != new:
        yield f"{place}{key.removeprefix('spec.')} {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9a-f]*.json"), key=lambda one: one.stat().st_mtime, reverse=True)
