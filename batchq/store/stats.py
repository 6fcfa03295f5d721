"""The file with what was measured of an item, beside its output."""

from __future__ import annotations

from dataclasses import asdict

from batchq.outcome import Outcome
from batchq.store.names import safe_name
from batchq.store.rows import known_json


def stats_file(step: int, outcome: Outcome) -> dict[str, bytes]:
    """The path and the content of an item's stats; nothing for one that was not measured."""
    if outcome.measured is None:
        return {}
    found = {"item_id": outcome.item_id, "state": outcome.state.value, **asdict(outcome.measured)}
    if outcome.error is not None:
        found["error"] = {"kind": outcome.error.kind, "message": outcome.error.message}
    path = f"items/{safe_name(outcome.item_id)}/{step:02d}_output.stats.json"
    return {path: known_json(found) + b"\n"}
