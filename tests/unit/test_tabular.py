"""Tables of JSON: what is written as Parquet is read back, by pyarrow and by batchq."""

from __future__ import annotations

import datetime as dt
import io
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from batchq.errors import PlanError
from batchq.plan import InputSpec
from batchq.planning.sources import read_rows
from batchq.text.tabular import cells_of, read_parquet, write_parquet

ROWS: list[Any] = [
    {"n": 1, "x": 1, "ok": True, "mixed": 1, "deep": {"a": "é", "list": [1, "b"]}, "void": None},
    {"n": 2**60, "x": 0.5, "ok": None, "mixed": "one", "deep": {"a": "\ud800", "empty": {}}},
    "alone",
]


def test_the_leaves_of_a_row_are_its_cells() -> None:
    assert cells_of({"a": {"b": 1, "c": {}}, "d": [{"e": 2}]}) == {
        "a__b": 1,
        "a__c": {},
        "d": [{"e": 2}],
    }
    assert cells_of([1]) == {"value": [1]}


def test_columns_of_parquet_have_the_type_of_all_their_values(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with path.open("wb") as file:
        write_parquet(file, ROWS)

    table = parquet.read_table(path)

    assert {
        name: str(kind) for name, kind in zip(table.column_names, table.schema.types, strict=True)
    } == {
        "n": "int64",
        "x": "double",
        "ok": "bool",
        "mixed": "string",
        "deep__a": "string",
        "deep__list": "string",
        "void": "string",
        "deep__empty": "string",
        "value": "string",
    }
    assert table.column("mixed").to_pylist() == ["1", "one", None]
    assert table.column("deep__list").to_pylist() == ['[1, "b"]', None, None]
    assert table.column("deep__a").to_pylist()[1] == "\\ud800"
    assert [row["x"] for row in read_parquet(str(path))] == [1.0, 0.5, None]


@pytest.mark.parametrize("rows", [[], [{}]])
def test_a_table_of_nothing_is_one_all_the_same(tmp_path: Path, rows: list[Any]) -> None:
    file = io.BytesIO()

    write_parquet(file, rows)

    assert parquet.read_table(io.BytesIO(file.getvalue())).num_columns == 0


def test_items_are_read_from_parquet_as_json(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": ["a", "b"],
            "day": [dt.date(2026, 2, 1), None],
            "price": [Decimal("1.50"), Decimal("2.00")],
            "score": [float("nan"), 0.5],
            "tags": [["x"], []],
        }
    )
    parquet.write_table(table, tmp_path / "in.parquet")

    rows = [*read_rows(InputSpec("in.parquet"), tmp_path, None, {})]

    assert rows == [
        (
            "in.parquet, row 1",
            {"id": "a", "day": "2026-02-01", "price": 1.5, "score": None, "tags": ["x"]},
        ),
        ("in.parquet, row 2", {"id": "b", "day": None, "price": 2, "score": 0.5, "tags": []}),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "in.parquet: cannot be read"), (b"PAR1 and no more of it", "cannot be read")],
)
def test_what_is_no_parquet_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "in.parquet").write_bytes(content)

    with pytest.raises(PlanError, match=words):
        list(read_rows(InputSpec("in.parquet"), tmp_path, None, {}))


def test_bytes_are_nothing_that_json_has(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"raw": [b"\0"]}), tmp_path / "in.parquet")

    with pytest.raises(PlanError, match="bytes is nothing that JSON has"):
        list(read_rows(InputSpec("in.parquet"), tmp_path, None, {}))


class Many:
    """Rows that are made when they are read."""

    def __iter__(self) -> Any:
        return ({"n": n, "text": f"{n}" * 50} for n in range(20_000))


def test_few_rows_are_held_at_a_time(tmp_path: Path) -> None:
    with (tmp_path / "many.parquet").open("wb") as file:
        write_parquet(file, [{"n": 1}])  # what is imported does not count
    tracemalloc.start()

    with (tmp_path / "many.parquet").open("wb") as file:
        write_parquet(file, Many())

    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20  # all rows would be 20 MB
    tracemalloc.stop()
