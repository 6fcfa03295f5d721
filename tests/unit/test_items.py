from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.errors import PlanError
from batchq.plan import InputSpec, Item
from batchq.planning.items import read_items

ROWS = [{"id": f"p{n}", "deep": {"key": n}} for n in range(6)]


def ids(spec: InputSpec, folder: Path, previous: list[object] | None = None) -> list[str]:
    return [item.id for item in read_items(spec, folder, previous)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    (tmp_path / "rows.jsonl").write_text("\ufeff" + "\n\n".join(map(json.dumps, ROWS)))
    (tmp_path / "rows.csv").write_text('\ufeffid,text\np0,"a, ""b""\nc"\np1,é\n')
    return tmp_path


@pytest.mark.parametrize("source", ["rows.json", "rows.jsonl"])
def test_json_and_jsonl_give_the_same_items(folder: Path, source: str) -> None:
    items = list(read_items(InputSpec(source, id_field="id"), folder))

    assert items == [Item(f"p{n}", n, row) for n, row in enumerate(ROWS)]


def test_csv_rows_are_mappings_of_texts(folder: Path) -> None:
    items = list(read_items(InputSpec("rows.csv", id_field="id"), folder))

    assert [item.data for item in items] == [
        {"id": "p0", "text": 'a, "b"\nc'},
        {"id": "p1", "text": "é"},
    ]


def test_ids_are_positions_or_nested_fields_and_always_texts(folder: Path) -> None:
    assert ids(InputSpec("rows.json"), folder) == ["0", "1", "2", "3", "4", "5"]
    assert ids(InputSpec("rows.json", id_field="deep__key"), folder)[5] == "5"


def test_numbers_are_generated(folder: Path) -> None:
    items = list(read_items(InputSpec("generate:2"), folder))

    assert [item.data for item in items] == [
        {"index": 0, "number": 1},
        {"index": 1, "number": 2},
    ]


def test_each_file_of_a_glob_is_an_item(folder: Path) -> None:
    (folder / "texts/sub").mkdir(parents=True)
    (folder / "texts/b.txt").write_text("B")
    (folder / "texts/sub/a.txt").write_bytes(b"\xff\0")

    items = list(read_items(InputSpec("texts/**/*.txt"), folder))

    assert [(item.data["name"], item.data["text"]) for item in items] == [
        ("b.txt", "B"),
        ("a.txt", None),
    ]
    assert items[0].data["path"] == str(folder / "texts/b.txt")


def test_the_output_before_is_read_when_there_is_no_source(folder: Path) -> None:
    assert ids(InputSpec(id_field="id"), folder, [{"id": 7}, {"id": "8"}]) == ["7", "8"]


def test_a_function_gives_items_and_may_take_the_params(folder: Path) -> None:
    (folder / "items_of_mine.py").write_text(
        "def plain():\n    return [1, 2]\n"
        "def counted(params):\n    for n in range(params['n']):\n        yield {'n': n}\n"
    )

    counted = read_items(InputSpec("py:items_of_mine:counted"), folder, params={"n": 2})
    assert [item.data for item in counted] == [{"n": 0}, {"n": 1}]
    assert ids(InputSpec("py:items_of_mine:plain"), folder) == ["0", "1"]


def test_only_skip_and_limit_keep_order_and_positions(folder: Path) -> None:
    spec = InputSpec("rows.json", id_field="id", only=("p4", "p1", "p2"), skip=("p2",), limit=5)

    items = list(read_items(spec, folder))

    assert [(item.id, item.index) for item in items] == [("p1", 1), ("p4", 4)]


def test_limit_reads_no_further_than_it_must(folder: Path) -> None:
    (folder / "long.jsonl").write_text("1\n2\nbroken\n")

    assert ids(InputSpec("long.jsonl", limit=2), folder) == ["0", "1"]


@given(count=st.integers(1, 60), n=st.integers(1, 70), seed=st.integers(0, 9))
def test_a_sample_is_repeatable_ordered_and_of_the_right_size(
    count: int, n: int, seed: int
) -> None:
    spec = InputSpec(f"generate:{count}", sample_n=n, sample_seed=seed)

    first = [item.index for item in read_items(spec, Path())]

    assert first == [item.index for item in read_items(spec, Path())]
    assert first == sorted(set(first))
    assert len(first) == min(n, count)


def test_a_sample_depends_on_its_seed_and_first_takes_the_first(folder: Path) -> None:
    samples = {
        tuple(ids(InputSpec("generate:100", sample_n=5, sample_seed=seed), folder))
        for seed in range(5)
    }
    assert len(samples) == 5
    first = InputSpec("generate:100", sample_n=2, sample_method="first")
    assert ids(first, folder) == ["0", "1"]


def test_the_whole_input_is_one_item(folder: Path) -> None:
    (item,) = read_items(InputSpec("rows.json", whole=True), folder)
    assert item == Item("all", 0, ROWS)
    (item,) = read_items(InputSpec("rows.json", whole=True, limit=2), folder)
    assert item.data == ROWS[:2]


def test_a_whole_document_need_not_be_an_array(folder: Path) -> None:
    (folder / "graph.json").write_text('{"nodes": []}')

    (item,) = read_items(InputSpec("graph.json", whole=True), folder)

    assert item.data == {"nodes": []}


@pytest.mark.parametrize(
    "item_id", ["../../etc/passwd", "a/b", "CON", "x" * 300, "日本語 🙂", " spaced ", "NUL.txt"]
)
def test_any_text_is_a_legal_id(folder: Path, item_id: str) -> None:
    (folder / "ids.json").write_text(json.dumps([{"id": item_id}]))

    assert ids(InputSpec("ids.json", id_field="id"), folder) == [item_id]


def test_an_item_of_5_mb_is_read(folder: Path) -> None:
    (folder / "big.csv").write_text(f"id,text\n1,{'x' * 5_000_000}\n")

    (item,) = read_items(InputSpec("big.csv"), folder)

    assert len(item.data["text"]) == 5_000_000


BAD = {
    "missing": ("no.json", None, "no.json: no such file"),
    "empty file": ("x.json", b"", "x.json: the file is empty; expected a JSON array"),
    "empty array": ("x.json", b"[]", "x.json: no items are left to run: it is empty, or"),
    "empty jsonl": ("x.jsonl", b"\n", "x.jsonl: no items are left to run: it is empty, or"),
    "empty csv": ("x.csv", b"", "x.csv: the file is empty; expected a line of column names"),
    "object": (
        "x.json",
        b'{"items": []}',
        "x.json: expected a JSON array, found an object; it holds a list under `items`",
    ),
    "number": ("x.json", b"3", "x.json: expected a JSON array, found a number"),
    "broken": ("x.json", b"[1,\n 2,, 3]", "x.json:2:4: not JSON: "),
    "lines": ("x.json", b"{}\n{}", "x.json:2:1: not JSON: Extra data; one object a line is .jsonl"),
    "nan": ("x.json", b"[NaN]", "x.json: not JSON: NaN is not part of JSON"),
    "surrogate": ("x.jsonl", b'"\\ud800"', "x.jsonl:1: not JSON: half of a surrogate pair"),
    "deep": ("x.json", b"[" * 100_000, "x.json: not JSON: "),
    "not utf-8": ("x.json", b'[\n"\xff"]', "x.json:2: not UTF-8: byte 0xff at offset 3"),
    "not utf-8 jsonl": ("x.jsonl", b'1\n"\xff"', "x.jsonl:2: not UTF-8: byte 0xff at offset 3"),
    "broken jsonl": ("x.jsonl", b"1\n\n{a\n", "x.jsonl:3:2: not JSON: "),
    "ragged csv": ("x.csv", b"a,b\n1,2\n3\n", "x.csv:3: 1 fields under 2 columns"),
    "double column": ("x.csv", b"a,a\n1,2\n", "x.csv:1: the column `a` is there twice"),
    "open quote": ("x.csv", b'a,b\n1,"2\n', "x.csv:2: not CSV: "),
    "no match": ("none/*.txt", None, "none/*.txt: no file matches in "),
    "other kind": ("x.xml", b"", "x.xml: expected a .json, .jsonl, .csv or .parquet file"),
}


@pytest.mark.parametrize(("source", "content", "expected"), BAD.values(), ids=BAD)
def test_a_bad_input_is_told_what_is_wrong_and_where(
    tmp_path: Path, source: str, content: bytes | None, expected: str
) -> None:
    if content is not None:
        (tmp_path / source).write_bytes(content)

    with pytest.raises(PlanError) as caught:
        list(read_items(InputSpec(source), tmp_path))

    assert str(caught.value).startswith(expected)


BAD_IDS = {
    "twice": ([{"id": 1}, {"id": "1"}], "x.json, element 1: the id `1` is there twice, first at "),
    "missing": ([{"ID": 1, "b": 2}], "x.json, element 0: no field `id` to take the id from; "),
    "null": ([{"id": None}], "x.json, element 0: no field `id` to take the id from; "),
    "empty": ([{"id": " "}], "x.json, element 0: the id in `id` is empty"),
    "list": ([{"id": []}], "x.json, element 0: the id in `id` is a list; use a text or a number"),
    "no mapping": ([3], "x.json, element 0: `id_field: id` needs objects, this is a number"),
}


@pytest.mark.parametrize(("rows", "expected"), BAD_IDS.values(), ids=BAD_IDS)
def test_a_bad_id_is_told_where_it_is(tmp_path: Path, rows: list[object], expected: str) -> None:
    (tmp_path / "x.json").write_text(json.dumps(rows))

    with pytest.raises(PlanError) as caught:
        list(read_items(InputSpec("x.json", id_field="id"), tmp_path))

    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("key", ["only", "skip"])
def test_an_unknown_id_is_told_the_nearest(folder: Path, key: str) -> None:
    spec = InputSpec("rows.json", id_field="id", **{key: ("p9",)})  # type: ignore[arg-type]

    with pytest.raises(PlanError, match=rf"{key}: no item has the id `p9`; nearest: p\d"):
        list(read_items(spec, folder))


def test_skipping_everything_is_an_error(folder: Path) -> None:
    with pytest.raises(PlanError, match="no items are left to run"):
        list(read_items(InputSpec("generate:1", skip=("0",)), folder))


FUNCTIONS = {
    "raises": ("raise ValueError('no')", "bad_raises.py:2: ValueError: no"),
    "exits": ("raise SystemExit(3)", "bad_exits.py:2: SystemExit: 3"),
    "text": ("return 'abc'", "must return a list or yield items, not a text"),
    "nothing": ("return None", "must return a list or yield items, not null"),
    "not_json": ("return [1, {2}]", "element 1: not JSON: Object of type set"),
}


@pytest.mark.parametrize(("name", "body", "expected"), [(k, *v) for k, v in FUNCTIONS.items()])
def test_a_function_that_fails_is_told_why(
    tmp_path: Path, name: str, body: str, expected: str
) -> None:
    (tmp_path / f"bad_{name}.py").write_text(f"def f():\n    {body}\n")

    with pytest.raises(PlanError) as caught:
        list(read_items(InputSpec(f"py:bad_{name}:f"), tmp_path))

    assert str(caught.value).startswith(f"py:bad_{name}:f")
    assert expected in str(caught.value)


def test_a_function_that_is_not_there_is_told_apart_from_its_module(tmp_path: Path) -> None:
    (tmp_path / "only_g.py").write_text("def g():\n    return []\n")

    with pytest.raises(PlanError, match="only_g has no function `f`; it has: g"):
        list(read_items(InputSpec("py:only_g:f"), tmp_path))
    with pytest.raises(PlanError, match="cannot import no_such_module_here"):
        list(read_items(InputSpec("py:no_such_module_here:f"), tmp_path))


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.json"])
def test_a_file_of_5_gb_without_a_line_end_is_refused_and_not_read_into_memory(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate(5 * 10**9)  # a hole: it takes no room on the disk

    with pytest.raises(PlanError, match=r"each item belongs on a line|read line by line"):
        list(read_items(InputSpec(source=name), tmp_path))
