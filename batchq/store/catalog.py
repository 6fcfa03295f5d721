"""The index of all runs, in SQLite or PostgreSQL.

It holds nothing that the run folders do not: `rebuild` makes it again. `sqlite:///:memory:` is the
in-memory twin for tests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Double, Engine, cast, delete, func, select

from batchq.outcome import Outcome, State, Summary, Usage
from batchq.progress import RunState
from batchq.records import BatchRecord, RunRecord, StepFigures, iso
from batchq.store.database import explained, open_engine, upsert
from batchq.store.tables import batches, items, runs

Clock = Callable[[], float]


def open_catalog(url: str, clock: Clock = time.time) -> SqlCatalog:
    """Opens a catalog by its SQLAlchemy URL, and makes it if it is not there.

    Raises StoreError if it is out of reach, is no catalog, or is one of another schema.
    """
    return SqlCatalog(open_engine(url), clock)


class SqlCatalog:
    """Implements `records.Catalog`; used by many threads and processes at once."""

    def __init__(self, engine: Engine, clock: Clock = time.time) -> None:
        self.engine = engine
        self._writer = engine.execution_options(is_write=True)
        self._clock = clock

    def close(self) -> None:
        """Closes its connections; it opens new ones when it is used again."""
        self.engine.dispose()

    def put_run(self, record: RunRecord) -> None:
        """Adds or replaces a run."""
        with explained(self.engine), self._writer.begin() as connection:
            upsert(connection, runs, [run_row(record)], ("run",))

    def put_batch(self, record: BatchRecord, outcomes: Sequence[Outcome]) -> None:
        """Adds or replaces a collated batch and its items, in one transaction."""
        now = iso(self._clock())
        row = _batch_row(record) | {"created_at": now, "updated_at": now}
        of_batch = (
            (items.c.run == record.run)
            & (items.c.step == record.step)
            & (items.c.batch == record.number)
        )
        rows = [_item_row(record, outcome) for outcome in outcomes]
        known = select(batches.c.id).where(
            batches.c.run == record.run,
            batches.c.step == record.step,
            batches.c.number == record.number,
        )
        with explained(self.engine), self._writer.begin() as connection:
            # A batch that is new has no items, and no index finds those of one that is not.
            is_again = connection.execute(known).first() is not None
            upsert(connection, batches, [row], ("run", "step", "number"), kept=("created_at",))
            if is_again:
                connection.execute(delete(items).where(of_batch))
            if rows:
                upsert(connection, items, rows, ("run", "step", "item_index"))

    def remove_run(self, run: str) -> None:
        """Forgets a run with its batches and items, in one transaction."""
        with explained(self.engine), self._writer.begin() as connection:
            for table in (items, batches, runs):
                connection.execute(delete(table).where(table.c.run == run))

    def runs(self, pipeline: str) -> list[RunRecord]:
        """The runs of a pipeline, oldest first; `listing.Listing` has those of all, by pages."""
        query = select(runs).where(runs.c.pipeline == pipeline)
        query = query.order_by(runs.c.created_at, runs.c.run)
        with explained(self.engine), self.engine.connect() as connection:
            return [run_record(row) for row in connection.execute(query).mappings()]

    def batches(self, run: str) -> dict[tuple[int, int], Summary]:
        """What the batches of a run came to, by step and number."""
        query = select(batches).where(batches.c.run == run)
        with explained(self.engine), self.engine.connect() as connection:
            rows = connection.execute(query).mappings()
            return {(row["step"], row["number"]): _summary_of(row) for row in rows}

    def items(
        self, run: str, *, step: int | None = None, state: str | None = None, limit: int = 1000
    ) -> list[Mapping[str, Any]]:
        """Rows of a run's items, in input order, as `item_of` names their columns."""
        query = select(items).where(items.c.run == run)
        if step is not None:
            query = query.where(items.c.step == step)
        if state is not None:
            query = query.where(items.c.state == state)
        query = query.order_by(items.c.step, items.c.item_index).limit(limit)
        with explained(self.engine), self.engine.connect() as connection:
            return [item_of(row) for row in connection.execute(query).mappings()]

    def figures(self, run: str, step: int) -> StepFigures:
        """What the items of a step took that were tried: means, and standard deviations."""
        tried = select(items).where(items.c.run == run, items.c.step == step, items.c.attempts > 0)
        rows = tried.subquery()
        failed = func.count().filter(rows.c.state == State.FAILED.value)
        tokens = rows.c.input_tokens, rows.c.output_tokens
        # In floating point: a sum of squares of whole numbers may be larger than the column's type.
        means = [func.avg(one) for one in (rows.c.attempts, rows.c.duration_ms, *tokens)]
        squares = [func.avg(cast(one, Double) * cast(one, Double)) for one in tokens]
        query = select(func.count(), failed, *means, *squares).select_from(rows)
        with explained(self.engine), self.engine.connect() as connection:
            count, bad, *found = connection.execute(query).one()
        attempts, duration, *known = (float(one or 0) for one in found)
        means_of, squares_of = known[:2], known[2:]
        spreads = [
            math.sqrt(max(0.0, square - mean**2))
            for mean, square in zip(means_of, squares_of, strict=True)
        ]
        return StepFigures(count, bad, attempts, duration / 1000, *means_of, *spreads)


def _summary_row(summary: Summary) -> dict[str, Any]:
    usage = summary.usage
    return {
        "ok": summary.ok,
        "failed": summary.failed,
        "retries": summary.retries,
        "repaired": summary.repaired,
        "cached": summary.cached,
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_nusd": usage.cost_nusd,
        "unpriced_calls": usage.unpriced_calls,
    }


def _summary_of(row: Mapping[Any, Any]) -> Summary:
    usage = Usage(
        row["calls"],
        row["input_tokens"],
        row["output_tokens"],
        row["cost_nusd"],
        row["unpriced_calls"],
    )
    return Summary(row["ok"], row["failed"], row["retries"], row["repaired"], row["cached"], usage)


def run_row(record: RunRecord) -> dict[str, Any]:
    """The columns of a run."""
    return {
        "run": record.run,
        "pipeline": record.pipeline,
        "version": record.version,
        "state": record.state.value,
        "status": record.status,
        "notes": _text(record.notes),
        "mode": record.mode,
        "base_version": record.base_version,
        "folder": record.folder,
        "created_at": record.created_at,
        "ended_at": record.ended_at,
        "duration_s": record.duration_s,
        "items": record.items,
    } | _summary_row(record.summary)


def run_record(row: Mapping[Any, Any]) -> RunRecord:
    """A row of the runs."""
    return RunRecord(
        run=row["run"],
        pipeline=row["pipeline"],
        version=row["version"],
        state=RunState(row["state"]),
        status=row["status"],
        notes=row["notes"],
        mode=row["mode"],
        base_version=row["base_version"],
        folder=row["folder"],
        created_at=row["created_at"],
        ended_at=row["ended_at"],
        duration_s=row["duration_s"],
        items=row["items"],
        summary=_summary_of(row),
    )


def _batch_row(record: BatchRecord) -> dict[str, Any]:
    return {
        "run": record.run,
        "step": record.step,
        "number": record.number,
        "model": record.model,
        "provider": record.provider,
        "items": record.items,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "duration_ms": record.duration_ms,
        "avg_confidence": record.avg_confidence,
    } | _summary_row(record.summary)


def _item_row(record: BatchRecord, outcome: Outcome) -> dict[str, Any]:
    error = outcome.error
    return {
        "run": record.run,
        "step": record.step,
        "item_index": outcome.index,
        "batch": record.number,
        "item_id": _text(outcome.item_id),
        "state": outcome.state.value,
        "kind": error.kind if error else "",
        "error": _text(error.message) if error else "",
        "attempts": len(outcome.attempts),
        "input_tokens": outcome.usage.input_tokens,
        "output_tokens": outcome.usage.output_tokens,
        "cost_nusd": outcome.usage.cost_nusd,
        "duration_ms": max(0, round((outcome.ended_at - outcome.started_at) * 1000)),
    }


def item_of(row: Mapping[Any, Any]) -> Mapping[str, Any]:
    """A row of the items, with the columns as people know them."""
    return {
        "id": row["item_id"],
        "index": row["item_index"],
        "step": row["step"],
        "batch": row["batch"],
        "state": row["state"],
        "kind": row["kind"],
        "error": row["error"],
        "attempts": row["attempts"],
        "tokens": row["input_tokens"] + row["output_tokens"],
        "cost_usd": row["cost_nusd"] / 1e9,
        "duration_ms": row["duration_ms"],
    }


def _text(text: str) -> str:
    """Text that every database takes: PostgreSQL refuses NUL, and UTF-8 half a surrogate pair."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()
