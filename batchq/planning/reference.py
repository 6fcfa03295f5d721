"""Reads what guided sampling goes by: the reference, and what is there already."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchq.errors import PlanError
from batchq.guided import Guide, Values, shares, tally
from batchq.outcome import Json
from batchq.plan import InputSpec
from batchq.planning.sources import kind_of, read_rows
from batchq.text.prompts import flatten


def values_of(data: Json, by: Sequence[str]) -> dict[str, Counter[str]]:
    """How often an item holds which values of some fields; a list holds each of its members."""
    known = flatten(data)
    found: dict[str, Counter[str]] = {}
    for name in by:
        value = known.get(name)
        members = value if isinstance(value, list) else [] if value is None else [value]
        if members:
            found[name] = Counter(map(_text, members))
    return found


def read_guide(
    by: Sequence[str],
    reference: str,
    existing: str | None,
    base_dir: Path,
    params: Mapping[str, Any],
) -> Guide:
    """Reads the shares to come near to, and what counts as chosen already.

    Either is items in any form that an input may have, or one JSON object of counts:
    {field: {value: count}}. Raises PlanError where one cannot be read, or where the reference has
    nothing in one of the fields.
    """
    goal = _counts(reference, by, base_dir, params)
    for name in by:
        if not goal.get(name):
            raise PlanError(f"sample: the reference {reference} has nothing in `{name}`")
    there = _counts(existing, by, base_dir, params) if existing else {}
    return Guide({name: shares(goal[name]) for name in by}, there)


def _counts(source: str, by: Sequence[str], base_dir: Path, params: Mapping[str, Any]) -> Values:
    rows = [value for _, value in read_rows(InputSpec(source, whole=True), base_dir, None, params)]
    is_document = len(rows) == 1 and source.endswith(".json") and isinstance(rows[0], Mapping)
    if not is_document or any(not isinstance(rows[0].get(name, {}), Mapping) for name in by):
        return tally([values_of(row, by) for row in rows])
    return {name: _as_counts(source, name, rows[0].get(name, {})) for name in by}


def _as_counts(source: str, name: str, counts: Mapping[str, Any]) -> dict[str, int]:
    for value, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int | float) or count < 0:
            raise PlanError(
                f"sample: {source}: {name}: `{value}` needs a count of 0 or more, "
                f"this is {kind_of(count)}"
            )
    return dict(counts)


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
