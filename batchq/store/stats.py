"""The file with what was measured of an item, beside its output."""

from __future__ import annotations

from dataclasses import asdict

from batchq.outcome import Json, Outcome
from batchq.store.names import safe_name
from batchq.store.rows import known_json


def stats_of(outcome: Outcome) -> dict[str, Json] | None:
    """What was measured of an item; None for one that was not."""
    if outcome.measured is None:
        return None
    found = {"item_id": outcome.item_id, "state": outcome.state.value, **asdict(outcome.measured)}
    if outcome.error is not None:
        found["error"] = {"kind": outcome.error.kind, "message": outcome.error.message}
    return found


def stats_file(step: int, outcome: Outcome) -> dict[str, bytes]:
    """The path and the content of an item's stats; nothing for one that was not measured."""
    found = stats_of(outcome)
    path = f"items/{safe_name(outcome.item_id)}/{step:02d}_output.stats.json"
    return {path: known_json(found) + b"\n"} if found else {}
