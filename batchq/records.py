"""What the catalog keeps of runs and batches, and the catalog as a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from batchq.outcome import Outcome, Summary
from batchq.progress import RunState


def iso(at: float) -> str:
    """Seconds since the epoch as UTC in ISO 8601, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One row of the catalog's runs. Times are UTC, ISO 8601."""

    run: str
    pipeline: str
    version: str
    state: RunState
    status: str
    notes: str
    mode: str
    base_version: str
    folder: str
    created_at: str
    ended_at: str = ""
    duration_s: float = 0.0
    items: int = 0
    summary: Summary = Summary()


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One row of the catalog's batches, which `pipeline_stats` shows."""

    run: str
    step: int
    number: int
    model: str
    provider: str
    items: int
    started_at: str
    ended_at: str
    duration_ms: int
    summary: Summary
    avg_confidence: float | None


@dataclass(frozen=True, slots=True)
class StepFigures:
    """What the items of a step took that were not from the cache: means, and how they spread."""

    items: int
    failed: int
    attempts: float
    duration_s: float
    input_tokens: float
    output_tokens: float
    input_spread: float
    output_spread: float


class Catalog(Protocol):
    """An index of runs; `batchq catalog rebuild` makes it again from the run folders."""

    def put_run(self, record: RunRecord) -> None:
        """Adds or replaces a run."""
        ...

    def put_batch(self, record: BatchRecord, outcomes: Sequence[Outcome]) -> None:
        """Adds or replaces a collated batch and its items, in one transaction."""
        ...

    def remove_run(self, run: str) -> None:
        """Forgets a run with its batches and items, in one transaction."""
        ...

    def runs(self, pipeline: str) -> list[RunRecord]:
        """The runs of a pipeline, oldest first."""
        ...

    def batches(self, run: str) -> dict[tuple[int, int], Summary]:
        """What the batches of a run came to, by step and number."""
        ...

    def items(
        self, run: str, *, step: int | None = None, state: str | None = None, limit: int = 1000
    ) -> list[Mapping[str, Any]]:
        """Rows of a run's items, in input order: id, index, step, state, error, tokens, cost."""
        ...

    def figures(self, run: str, step: int) -> StepFigures:
        """What the items of a step took."""
        ...
