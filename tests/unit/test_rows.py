from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pyarrow import parquet
from ruamel.yaml import YAML

from batchq.errors import StoreError
from batchq.outcome import ItemError, Outcome, State
from batchq.plan import OutputSpec
from batchq.store.rows import Rows, shape, to_json, write_document, write_rows


def ok(index: int, output: Any, item_id: str = "") -> Outcome:
    return Outcome(item_id or f"i{index}", index, State.OK, output=output)


def bad(index: int) -> Outcome:
    return Outcome(f"i{index}", index, State.FAILED, error=ItemError("timeout", "too slow"))


def rows_of(outcomes: list[Outcome], output: OutputSpec) -> Rows:
    def read() -> Iterator[Outcome]:
        return iter(outcomes)

    return Rows(read, output)


def written(suffix: str, rows: Any) -> str:
    file = io.BytesIO()
    write_rows(file, suffix, rows)
    return file.getvalue().decode()


AWKWARD = [
    {"zeta": "no", "time": "22:30", "number": "1e3", "text": 'two\nlines, "quoted"', "é": None},
    {"nested": {"deep": {"list": [1, {"a": True}], "empty": {}}}, "float": 1.5, "bool": False},
    {"odd": "\x85\u2028\ufeff\t", "date": "2020-01-01", "octal": "010", "": "empty key"},
]


def test_a_mapping_starts_with_its_number_and_its_source() -> None:
    output = OutputSpec("x.json", id_field="problem_id", id_start=10, source_id_field="template_id")

    shaped = shape(ok(3, {"question": "?", "problem_id": "made up"}, "4004"), output)

    assert list(shaped.items()) == [
        ("problem_id", 13), ("source_template_id", "4004"), ("question", "?"),
    ]  # fmt: skip


@pytest.mark.parametrize(("is_number", "kept"), [(True, 4), (False, "4")])
def test_an_output_gets_the_id_that_a_later_step_goes_by(is_number: bool, kept: Any) -> None:
    output = OutputSpec("x.json", kept_id_field="problem_id", kept_id_is_number=is_number)

    assert shape(ok(3, {"title": "!"}, "4"), output) == {"problem_id": kept, "title": "!"}
    assert shape(ok(3, {"problem_id": 9}, "4"), output) == {"problem_id": 9}


def test_an_output_that_is_no_mapping_is_left_as_it_is_unless_it_is_to_be_numbered() -> None:
    assert shape(ok(0, [1, 2]), OutputSpec("x.json", kept_id_field="n")) == [1, 2]
    numbered = shape(ok(0, "said", "4001"), OutputSpec("x.json", id_field="n", source_id_field="t"))
    assert numbered == {"n": 1, "source_t": "4001", "output": "said"}


def test_an_item_keeps_its_number_when_one_before_it_fails() -> None:
    rows = rows_of([bad(0), ok(1, {})], OutputSpec("x.json", id_field="n"))

    assert list(rows) == [{"n": 2}]
    assert (rows.written, rows.errors, rows.dropped) == (1, 1, 0)


@pytest.mark.parametrize(("keep", "kept"), [("first", [0, 2, 3]), ("last", [1, 2, 3])])
def test_duplicates_by_field_are_left_out_and_counted(keep: Any, kept: list[int]) -> None:
    outcomes = [
        ok(0, {"at": 0, "meta": {"text": "same"}}),
        ok(1, {"at": 1, "meta": {"text": "same"}}),
        ok(2, {"at": 2, "meta": {"text": "other"}}),
        ok(3, {"at": 3}),
    ]
    output = OutputSpec("x.json", dedup_by=("meta__text",), dedup_keep=keep)
    rows = rows_of(outcomes, output)

    assert [row["at"] for row in rows] == kept
    assert rows.dropped == 1


def test_outputs_without_any_of_the_fields_are_no_duplicates_of_each_other() -> None:
    rows = rows_of([ok(0, {"a": 1}), ok(1, "text")], OutputSpec("x.json", dedup_by=("b",)))

    assert list(rows) == [{"a": 1}, "text"]


@pytest.mark.parametrize("rows", [[], AWKWARD, [1, "no", None, [2]]])
def test_json_jsonl_and_yaml_give_the_same_rows_back_with_keys_in_order(rows: list[Any]) -> None:
    as_json = json.loads(written(".json", rows))
    as_lines = [json.loads(line) for line in written(".jsonl", rows).split("\n")[:-1]]
    as_yaml = YAML(typ="safe", pure=True).load(written(".yaml", rows))

    assert as_json == as_lines == as_yaml == rows
    assert [list(row) for row in as_yaml if isinstance(row, dict)] == [
        list(row) for row in rows if isinstance(row, dict)
    ]


def test_a_json_array_is_indented_by_two_spaces_and_keeps_letters_as_they_are() -> None:
    assert (
        written(".json", [{"é": [1]}])
        == json.dumps([{"é": [1]}], indent=2, ensure_ascii=False) + "\n"
    )


def test_csv_has_the_columns_of_all_rows_and_joins_nested_names() -> None:
    text = written(".csv", [{"a": 1, "b": {"c": "x,\ny"}}, {"d": [1, "é"], "b": {}}, "alone"])

    table = list(csv.reader(io.StringIO(text)))

    assert table == [
        ["a", "b__c", "d", "b", "value"],
        ["1", "x,\ny", "", "", ""],
        ["", "", '[1, "é"]', "{}", ""],
        ["", "", "", "", "alone"],
    ]


def test_parquet_has_the_rows_of_a_step_without_its_duplicates() -> None:
    rows = rows_of(
        [ok(0, {"n": 1, "text": "a"}), bad(1), ok(2, {"n": 2, "text": "a"}), ok(3, {"n": 3})],
        OutputSpec("out.parquet", dedup_by=("text",)),
    )
    file = io.BytesIO()

    write_rows(file, ".parquet", rows)

    table = parquet.read_table(io.BytesIO(file.getvalue()))
    assert table.to_pydict() == {"n": [1, 3], "text": ["a", None]}
    assert (rows.written, rows.dropped, rows.errors) == (2, 1, 1)


def test_text_that_utf8_cannot_hold_is_escaped() -> None:
    assert json.loads(to_json({"half": "\ud800"})) == {"half": "\ud800"}


def test_a_format_that_cannot_hold_the_output_is_refused_by_name() -> None:
    with pytest.raises(StoreError, match=r"\.csv"):
        write_document(io.BytesIO(), ".csv", {"a": "graph"})
    with pytest.raises(StoreError, match=r"\.xlsx.*\.jsonl"):
        write_rows(io.BytesIO(), ".xlsx", [])
