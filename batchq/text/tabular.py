"""Rows of JSON as tables: CSV and Parquet, whose columns are the leaves of the rows."""

from __future__ import annotations

import csv
import datetime as dt
import decimal
import importlib.util
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from batchq.errors import StoreError
from batchq.outcome import Json

if TYPE_CHECKING:
    import pyarrow as pa

VALUE_COLUMN = "value"
"""The column of rows that are no mappings."""
NEEDS_PYARROW = "Parquet needs pyarrow: pip install 'batchq[parquet]'"

_GROUP_ROWS = 2_000
_EXACT = 2**53  # beyond it a number with a point is not exact
_INT64 = 2**63


def has_parquet() -> bool:
    """Whether what reads and writes Parquet is installed."""
    return importlib.util.find_spec("pyarrow") is not None


def cells_of(row: Json, prefix: str = "") -> dict[str, Json]:
    """The leaves of a row by name: nested names joined by `__`, lists whole."""
    if not isinstance(row, Mapping) or (prefix and not row):
        return {prefix or VALUE_COLUMN: row}
    cells: dict[str, Json] = {}
    for key, value in row.items():
        cells.update(cells_of(value, f"{prefix}__{key}" if prefix else str(key)))
    return cells


def cell_text(value: Json) -> str:
    """A leaf as text: lists as JSON, null as nothing."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)  # as JSON has it, in a fifth of the time
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_csv(file: IO[bytes], rows: Iterable[Json]) -> None:
    """Writes rows as CSV; reads them twice and holds none."""
    columns: dict[str, None] = {}
    for row in rows:
        columns.update(dict.fromkeys(cells_of(row)))
    text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = cells_of(row)
        writer.writerow([cell_text(cells.get(name)) for name in columns])
    text.detach()


def write_parquet(file: IO[bytes], rows: Iterable[Json]) -> None:
    """Writes rows as Parquet; reads them twice and holds few of them.

    A column has whole numbers, numbers, or true and false if all its values are; else it is text,
    in which other values than text are JSON. Raises StoreError without pyarrow.
    """
    kinds: dict[str, set[str]] = {}
    for row in rows:
        for name, value in cells_of(row).items():
            kinds.setdefault(name, set()).add(_kind(value))
    arrow = _pyarrow()
    types = {name: _type(arrow, found - {"null"}) for name, found in kinds.items()}
    schema = arrow.schema(list(types.items()))
    with arrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        flat = map(cells_of, rows)
        while group := list(islice(flat, _GROUP_ROWS)):
            columns = [
                arrow.array([_fitting(row.get(name), kind, arrow) for row in group], kind)
                for name, kind in types.items()
            ]
            writer.write_batch(arrow.record_batch(columns, schema=schema))


def read_parquet(path: str) -> Iterator[dict[str, Json]]:
    """The rows of a Parquet file one by one, as JSON: dates as ISO 8601, NaN as null.

    Raises StoreError without pyarrow, ValueError for what is not Parquet, or no JSON.
    """
    arrow = _pyarrow()
    try:
        with arrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_GROUP_ROWS):
                for row in batch.to_pylist():
                    yield {str(name): _plain(value) for name, value in row.items()}
    except arrow.ArrowException as error:
        raise ValueError(str(error).splitlines()[0]) from error


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet  # takes 0.3 s that other formats do not need
    except ImportError as error:
        raise StoreError(NEEDS_PYARROW) from error
    return pyarrow


def _kind(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int):
        return "whole" if abs(value) < _EXACT else "long" if abs(value) < _INT64 else "text"
    return "number" if isinstance(value, float) else "text"


def _type(arrow: Any, kinds: set[str]) -> pa.DataType:
    if kinds == {"truth"}:
        return arrow.bool_()
    if kinds and kinds <= {"whole", "long"}:
        return arrow.int64()
    return arrow.float64() if kinds and kinds <= {"whole", "number"} else arrow.string()


def _fitting(value: Json, kind: pa.DataType, arrow: Any) -> Json:
    if value is None or kind != arrow.string():
        return value
    return cell_text(value).encode("utf-8", "backslashreplace").decode()


def _plain(value: Any) -> Json:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return _plain(int(value) if value == value.to_integral_value() else float(value))
    raise ValueError(f"{type(value).__name__} is nothing that JSON has")
