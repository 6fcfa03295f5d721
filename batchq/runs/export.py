"""The items of a run as rows of a table: what became of each, and its output in columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from batchq.errors import UsageError
from batchq.outcome import Json
from batchq.plan import Plan
from batchq.store import RunFolder
from batchq.store.lines import Line
from batchq.store.rows import write_rows
from batchq.text.tabular import VALUE_COLUMN, cells_of

SUFFIXES = {"csv": ".csv", "parquet": ".parquet", "jsonl": ".jsonl"}
_USED = ("calls", "input_tokens", "output_tokens")
_MEASURED = ("duration_s", "cpu_s", "peak_bytes", "output_bytes")


@dataclass(frozen=True)
class ItemRows:
    """The items of a step, in input order; each reading reads the run folder anew, and holds one.

    Fields of an output are called `output__NAME`, those of an input `input__NAME`.
    """

    folder: RunFolder
    step: int
    with_inputs: bool = False

    def __iter__(self) -> Iterator[dict[str, Json]]:
        lines = self.folder.merged_lines(self.step)
        if not self.with_inputs:
            return (_row(line) for line in lines)
        return self._beside_inputs(lines)

    def _beside_inputs(self, lines: Iterator[Line]) -> Iterator[dict[str, Json]]:
        items = iter(self.folder.all_items(self.step))
        item = next(items, None)
        for line in lines:
            while item is not None and item.index < line.index:
                item = next(items, None)
            data = item.data if item is not None and item.index == line.index else {}
            yield _row(line) | _named("input", data)


def step_number(plan: Plan, name: str | None) -> int:
    """The step of this name, the last one by default; raises UsageError with those there are."""
    if name is None:
        return plan.steps[-1].spec.number
    for step in plan.steps:
        if step.spec.name == name:
            return step.spec.number
    raise UsageError(f"no step `{name}`; there are {', '.join(s.spec.name for s in plan.steps)}")


def export(rows: ItemRows, form: str, file: IO[bytes]) -> int:
    """Writes rows to a file; returns how many. Raises StoreError for Parquet without pyarrow."""
    counted = _Counted(rows)
    write_rows(file, SUFFIXES[form], counted)
    return counted.last


class _Counted:
    """Rows, and how many there were when they were last read."""

    def __init__(self, rows: ItemRows) -> None:
        self._rows = rows
        self.last = 0

    def __iter__(self) -> Iterator[dict[str, Json]]:
        self.last = 0
        for row in self._rows:
            self.last += 1
            yield row


def _row(line: Line) -> dict[str, Json]:
    about = line.about
    error: Mapping[str, Any] = about.get("error") or {}
    used: Mapping[str, Any] = about.get("usage") or {}
    attempts = about.get("attempts") or []
    row: dict[str, Json] = {
        "item_id": line.item_id,
        "item_index": line.index,
        "state": "ok" if line.is_ok else "failed",
        "error_kind": error.get("kind"),
        "error": error.get("message"),
        "attempts": len(attempts),
        "seconds": round(about.get("ended_at", 0.0) - about.get("started_at", 0.0), 3),
        **{name: used.get(name, 0) for name in _USED},
        "cost_usd": used.get("cost_nusd", 0) / 1e9,
        "from_cache": bool(about.get("cached")),
        "repaired": bool(about.get("repaired")),
    }
    measured: Mapping[str, Any] | None = about.get("measured")
    if measured is not None:
        row |= {name: measured.get(name) for name in _MEASURED}
        row |= {f"metric__{name}": value for name, value in measured["metrics"].items()}
    return row | (_named("output", line.output) if line.is_ok else {})


def _named(what: str, value: Json) -> dict[str, Json]:
    cells = cells_of(value) if isinstance(value, Mapping) else {VALUE_COLUMN: value}
    return {f"{what}__{name}": cell for name, cell in cells.items()}
