"""Reads the catalog a page at a time: runs by what they are, items by where they stand.

Nothing here counts or reads all items of a run: a run may have a million.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Engine, Select, and_, func, or_, select, tuple_

from batchq.outcome import State
from batchq.progress import RunState
from batchq.records import RunRecord
from batchq.store.catalog import item_of, run_record
from batchq.store.database import explained
from batchq.store.tables import batches, items, runs

MOST_BATCHES = 20_000
"""Newest batches that a chart is made of."""

MOST_LOOKED = 200_000
"""Items that one search by text looks through; a million take a second."""

_GOING = [one.value for one in RunState if not one.is_over]
_OPEN = (*_GOING, RunState.PAUSED.value)
_PLACE = tuple_(items.c.step, items.c.item_index)
_NEWEST = (func.length(runs.c.version).desc(), runs.c.version.desc(), runs.c.created_at.desc())
"""By the number of a version: v10 comes after v9, whenever they were made."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are wanted; an empty field wants all. `state` may be `open`: not ended yet.

    `text` is a part of a pipeline's name, of a version's name `p@v1`, or of a note.
    """

    pipeline: str = ""
    state: str = ""
    label: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """Which items are wanted; `text` is a part of an id, or of the kind and text of an error."""

    step: int | None = None
    state: str = ""
    kind: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Items in input order; `looked_to` is where a search stopped before it had found enough."""

    rows: list[Mapping[str, Any]]
    looked_to: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class BatchSpan:
    """What a collated batch gave, and between when; in seconds since the epoch."""

    step: int
    start: float
    end: float
    ok: int
    failed: int


class Listing:
    """Pages of a catalog; used by many threads at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"

    def runs(self, wanted: RunFilter, *, offset: int, limit: int) -> tuple[list[RunRecord], int]:
        """Runs, newest first, and how many there are in all."""
        found = select(runs).where(*_run_conditions(wanted))
        page = found.order_by(runs.c.created_at.desc(), runs.c.run).offset(offset).limit(limit)
        total = select(func.count()).select_from(runs).where(*_run_conditions(wanted))
        with explained(self._engine), self._engine.connect() as connection:
            count = connection.execute(total).scalar_one()
        return self._runs(page), count

    def count(self) -> int:
        """How many runs there are."""
        with explained(self._engine), self._engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(runs)).scalar_one()

    def newest(self, most: int) -> list[RunRecord]:
        """The newest runs of all, newest first."""
        return self._runs(select(runs).order_by(runs.c.created_at.desc(), runs.c.run).limit(most))

    def open_runs(self) -> list[str]:
        """The runs that have not ended, as far as the catalog was told, oldest first."""
        query = select(runs.c.run).where(runs.c.state.in_(_GOING)).order_by(runs.c.created_at)
        with explained(self._engine), self._engine.connect() as connection:
            return [*connection.execute(query).scalars()]

    def pipelines(self) -> dict[str, int]:
        """All pipelines and how many versions each has, in the order of their first one."""
        query = select(runs.c.pipeline, func.count()).group_by(runs.c.pipeline)
        query = query.order_by(func.min(runs.c.created_at), runs.c.pipeline)
        with explained(self._engine), self._engine.connect() as connection:
            return {name: count for name, count in connection.execute(query)}  # noqa: C416 (rows)

    def names(self) -> tuple[list[str], list[str]]:
        """All pipelines and all labels, in order."""
        with explained(self._engine), self._engine.connect() as connection:
            found = [
                [row[0] for row in connection.execute(select(column).distinct().order_by(column))]
                for column in (runs.c.pipeline, runs.c.status)
            ]
        return found[0], found[1]

    def run(self, name: str) -> RunRecord | None:
        """Finds `pipeline@v3`, `pipeline@latest`, `pipeline` (its newest) or a run id.

        A run id that is the name of a pipeline as well is that.
        """
        pipeline, _, version = name.rpartition("@")
        is_version = bool(pipeline) and version[:1] == "v" and version[1:].isdigit()
        condition: ColumnElement[bool] = runs.c.run == name
        if is_version:
            condition = or_(condition, and_(runs.c.pipeline == pipeline, runs.c.version == version))
        elif pipeline and version == "latest":
            done = runs.c.state == RunState.COMPLETED.value
            condition = or_(condition, and_(runs.c.pipeline == pipeline, done))
        else:
            condition = or_(condition, runs.c.pipeline == name)
        found = self._runs(
            select(runs).where(condition).order_by(runs.c.run == name, *_NEWEST).limit(1)
        )
        return found[0] if found else None

    def versions(
        self, pipeline: str, most: int | None = 500, *, labels: Collection[str] = ()
    ) -> list[RunRecord]:
        """The newest versions of a pipeline, newest first; all if `most` is None."""
        query = select(runs).where(runs.c.pipeline == pipeline)
        if labels:
            query = query.where(runs.c.status.in_([*labels]))
        return self._runs(query.order_by(*_NEWEST).limit(most))

    def _runs(self, query: Select[Any]) -> list[RunRecord]:
        with explained(self._engine), self._engine.connect() as connection:
            return [run_record(row) for row in connection.execute(query).mappings()]

    def items(
        self, run: str, wanted: ItemFilter, *, after: tuple[int, int], limit: int
    ) -> ItemPage:
        """Items that come after (step, index) in input order."""
        return self._page(run, wanted, tuple_(*after) < _PLACE, limit, is_forward=True)

    def items_before(
        self, run: str, wanted: ItemFilter, *, before: tuple[int, int], limit: int
    ) -> ItemPage:
        """Items that come before (step, index), the nearest of them, in input order."""
        return self._page(run, wanted, tuple_(*before) > _PLACE, limit, is_forward=False)

    def _page(
        self,
        run: str,
        wanted: ItemFilter,
        side: ColumnElement[bool],
        limit: int,
        *,
        is_forward: bool,
    ) -> ItemPage:
        """A page of one side of a place, the nearest items first; in input order."""
        place = [items.c.step, items.c.item_index]
        order = place if is_forward else [one.desc() for one in place]
        query = _items(run, wanted, is_sqlite=self._is_sqlite).where(side).order_by(*order)
        end = None
        with explained(self._engine), self._engine.connect() as connection:
            if wanted.text:  # no index has parts of texts
                plain = _items(run, replace(wanted, text="")).where(side).order_by(*order)
                last = plain.with_only_columns(*place).offset(MOST_LOOKED - 1).limit(1)
                end = connection.execute(last).one_or_none()
            if end is not None:
                edge = tuple_(*end)
                query = query.where(edge >= _PLACE if is_forward else edge <= _PLACE)
            rows = [item_of(row) for row in connection.execute(query.limit(limit)).mappings()]
        looked_to = (end[0], end[1]) if end is not None and len(rows) < limit else None
        return ItemPage(rows if is_forward else rows[::-1], looked_to)

    def spans(self, run: str) -> list[BatchSpan]:
        """The newest collated batches of a run."""
        wanted = (batches.c.step, batches.c.started_at, batches.c.ended_at)
        query = select(*wanted, batches.c.ok, batches.c.failed).where(batches.c.run == run)
        query = query.order_by(batches.c.step.desc(), batches.c.number.desc()).limit(MOST_BATCHES)
        with explained(self._engine), self._engine.connect() as connection:
            return [
                BatchSpan(step, _seconds(start), _seconds(end), ok, failed)
                for step, start, end, ok, failed in connection.execute(query)
            ]

    def durations(self, run: str, step: int, most: int = 1000) -> list[float]:
        """How long the last items of a step took that came to an end, in seconds."""
        query = select(items.c.duration_ms).where(items.c.run == run, items.c.step == step)
        query = query.order_by(items.c.item_index.desc()).limit(most)
        with explained(self._engine), self._engine.connect() as connection:
            return [row[0] / 1000 for row in connection.execute(query)]


def _run_conditions(wanted: RunFilter) -> Sequence[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.pipeline:
        found.append(runs.c.pipeline == wanted.pipeline)
    if wanted.state:
        states = _OPEN if wanted.state == "open" else (wanted.state,)
        found.append(runs.c.state.in_(states))
    if wanted.label:
        found.append(runs.c.status == wanted.label)
    if wanted.text:
        name = runs.c.pipeline + "@" + runs.c.version
        columns = (name, runs.c.notes, runs.c.run)
        found.append(or_(*(one.icontains(wanted.text, autoescape=True) for one in columns)))
    return found


def _items(run: str, wanted: ItemFilter, *, is_sqlite: bool = False) -> Select[Any]:
    query = select(items).where(items.c.run == run)
    if wanted.step is not None:
        query = query.where(items.c.step == wanted.step)
    if wanted.state:
        query = query.where(items.c.state == wanted.state)
    if wanted.kind:
        query = query.where(items.c.kind == wanted.kind)
    if wanted.text:
        in_id, in_kind, in_error = (
            _has(one, wanted.text, is_sqlite=is_sqlite)
            for one in (items.c.item_id, items.c.kind, items.c.error)
        )
        has_error = and_(items.c.state == State.FAILED.value, or_(in_kind, in_error))
        query = query.where(or_(in_id, has_error))
    return query


def _has(column: Column[str], text: str, *, is_sqlite: bool) -> ColumnElement[bool]:
    """Whether a column has a text in it, in whatever case.

    SQLite's LIKE passes over the case by itself; to fold a million texts first takes twice as long.
    """
    if is_sqlite:
        return column.contains(text, autoescape=True)
    return column.icontains(text, autoescape=True)


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp() if iso else 0.0
