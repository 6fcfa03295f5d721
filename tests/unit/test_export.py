"""The items of a run as a table, of a run that is over or half way."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from pyarrow import parquet

from batchq.errors import UsageError
from batchq.manifest.loader import load_manifest
from batchq.outcome import Attempt, ItemError, Measured, Outcome, State, Usage
from batchq.planning.planner import iter_items, make_plan
from batchq.runs.export import ItemRows, export, step_number
from batchq.store import Outputs, RunFolder

MANIFEST = """
config: {output_dir: out}
steps:
  - {name: draft, input: {generate: 3}, task: "m:f"}
  - {name: grade, task: "m:g"}
"""
PAID = Usage(1, 100, 20, 1_500_000)
OUTCOMES = [
    Outcome("0", 0, State.OK, {"text": "a,b", "deep": {"n": [1, 2]}}, usage=PAID,
            attempts=(Attempt(1, 1.0, 0.5), Attempt(2, 1.5, 0.5)), started_at=1.0, ended_at=3.0),
    Outcome("1", 1, State.FAILED, error=ItemError("schema", "no `n`"), ended_at=1.5),
    Outcome("2", 2, State.OK, 7, measured=Measured(1.0, 0.5, 9, 1, {"score": 0.5, "bad": None})),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    path = tmp_path / "words.yaml"
    path.write_text(MANIFEST)
    plan = make_plan(load_manifest(path))
    made = Outputs("out", str(tmp_path)).create_version("words")
    made.write_plan(plan)
    made.freeze_items(1, iter_items(plan, 1))
    made.write_batch(1, 0, OUTCOMES, plan.step(1).output)
    return made


def test_a_row_has_what_became_of_an_item_and_its_output_in_columns(folder: RunFolder) -> None:
    first, failed, lone = ItemRows(folder, 1)

    assert first == {
        "item_id": "0",
        "item_index": 0,
        "state": "ok",
        "error_kind": None,
        "error": None,
        "attempts": 2,
        "seconds": 2.0,
        "calls": 1,
        "input_tokens": 100,
        "output_tokens": 20,
        "cost_usd": 0.0015,
        "from_cache": False,
        "repaired": False,
        "output__text": "a,b",
        "output__deep__n": [1, 2],
    }
    assert (failed["state"], failed["error_kind"], failed["error"]) == (
        "failed",
        "schema",
        "no `n`",
    )
    assert (lone["output__value"], lone["metric__score"], lone["peak_bytes"]) == (7, 0.5, 9)


def test_what_items_were_given_is_beside_it_if_wanted(folder: RunFolder) -> None:
    rows = list(ItemRows(folder, 1, with_inputs=True))

    assert [row["input__number"] for row in rows] == [1, 2, 3]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_every_format_holds_all_rows(folder: RunFolder, form: str) -> None:
    file = io.BytesIO()

    number = export(ItemRows(folder, 1), form, file)

    if form == "csv":
        texts = [
            row["output__text"] for row in csv.DictReader(io.StringIO(file.getvalue().decode()))
        ]
        assert texts == ["a,b", "", ""]
    elif form == "jsonl":
        assert [json.loads(line)["item_id"] for line in file.getvalue().splitlines()] == [*"012"]
    else:
        table = parquet.read_table(io.BytesIO(file.getvalue()))
        assert table.column("output__value").to_pylist() == [None, None, 7]
    assert number == 3


def test_a_step_that_has_not_begun_is_an_empty_table(folder: RunFolder) -> None:
    assert step_number(folder.read_plan(), None) == 2
    assert list(ItemRows(folder, 2)) == []


def test_an_unknown_step_is_told_with_those_there_are(folder: RunFolder) -> None:
    with pytest.raises(UsageError, match="no step `grad`; there are draft, grade"):
        step_number(folder.read_plan(), "grad")
