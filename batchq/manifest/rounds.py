"""Rounds: one manifest submitted several times in a row, each on what the round before left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from batchq.manifest.models import Manifest
from batchq.outcome import Usage

Report = Callable[[tuple[str | int, ...], str, str], None]

ROUND = "round"
"""The param that a manifest with rounds has: which one it is, from 1."""

_DECLARED = {
    "type": "int",
    "default": 1,
    "min": 1,
    "description": "The round to begin with; a submit counts it up to `rounds`.",
}


def with_round(declared: Any, data: Mapping[str, Any], report: Report) -> Any:
    """Adds the param `round` to those of a manifest, as written, that has rounds."""
    if data.get("rounds") in (None, False) or not isinstance(declared, dict | None):
        return declared
    if ROUND in (declared or {}):
        message = "a manifest with `rounds` has a param of this name already, which counts them"
        report(("params", ROUND), message, "give this one another name")
        return declared
    return {**(declared or {}), ROUND: _DECLARED}


def check_rounds(manifest: Manifest, values: Mapping[str, Any], report: Report) -> None:
    """Reports what does not go together with rounds."""
    rounds, number = manifest.rounds, values.get(ROUND)
    if rounds is None:
        return
    if isinstance(number, int) and number > rounds:
        report(("rounds",), f"there is no round {number}", f"rounds are 1 to {rounds}")
    parts = [("config", manifest.config), *((one.name, one) for one in manifest.steps)]
    name = next((name for name, part in parts if part.skip_existing), None)
    if name is not None:
        message = f"`rounds` and `skip_existing` (in {name}) do not go together"
        report(("rounds",), message, "a round is to do again what the one before it did")


def rounds_left(manifest: Manifest) -> range:
    """The numbers of the rounds that a submit runs; one where there are none."""
    first = manifest.origin.params.get(ROUND, 1) if manifest.rounds else 1
    return range(first, (manifest.rounds or 1) + 1)


def bounds_left(manifest: Manifest, spent: Usage) -> tuple[int | None, int | None] | None:
    """What rounds before leave of a budget, in nano-dollars and tokens; None if it is used up."""
    if manifest.budget is None:
        return None, None
    nusd, tokens = manifest.budget.usd, manifest.budget.tokens
    left = (
        None if nusd is None else nusd - spent.cost_nusd,
        None if tokens is None else tokens - spent.tokens,
    )
    return None if any(one is not None and one <= 0 for one in left) else left
