"""What holds for finding and marking items, on a disk and on an object store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchq.errors import StoreError
from batchq.outcome import Outcome, State
from batchq.plan import (
    InputSpec,
    Item,
    OutputSpec,
    Pacing,
    Plan,
    StageSpec,
    StepPlan,
    StepSpec,
    Tolerance,
)
from batchq.store import Outputs, RunFolder
from batchq.store.marks import Mark, Verdict, marks_of, put_mark
from batchq.store.search import (
    find_id,
    find_index,
    read_names,
    read_outcome,
    select_ids,
    select_indexes,
)

OUTPUT = OutputSpec("out.json")
ANY_TEXT = st.text(st.characters(exclude_categories=[]), min_size=1, max_size=6)


@pytest.fixture
def folder(outputs_url: str) -> RunFolder:
    return Outputs(outputs_url).create_version("studio")


def plan(batch_size: int) -> Plan:
    step = StepPlan(
        spec=StepSpec(1, "one", (StageSpec("", "task", task="m:f"),)), input=InputSpec("in.json"),
        output=OUTPUT, pacing=Pacing(batch_size=batch_size), queue="cpu", needs=(),
        tolerance=Tolerance(), items=3, items_are_estimated=False, batches=1, calls=0,
        input_tokens=0, output_tokens=0, cost_usd=None, duration_s=1.0, bound_by="cpu",
    )  # fmt: skip
    return Plan(
        name="studio", pipeline="studio", labels={}, status="beta", notes="", output_dir="o",
        manifest_path="m.yaml", base_dir=".", params={}, steps=(step,), hashes={},
    )  # fmt: skip


@given(ids=st.lists(ANY_TEXT, unique=True, min_size=1, max_size=8), data=ANY_TEXT)
@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30
)
def test_every_item_is_found_by_its_id_and_by_its_index_whatever_is_in_them(
    folder: RunFolder, ids: list[str], data: str
) -> None:
    folder.files.at("state").remove_all()
    items = [Item(item_id, 10 + 2 * n, {"id": data}) for n, item_id in enumerate(ids)]
    folder.freeze_items(1, iter(items))

    by_id = [find_id(folder, 1, item.id) for item in items]
    by_index = [find_index(folder, 1, item.index) for item in items]

    assert [place.item for place in by_id if place] == items
    assert by_id == by_index
    assert list(select_ids(folder, 1, {item.id for item in items[1:]})) == items[1:]
    assert list(select_indexes(folder, 1, {item.index for item in items[::2]})) == items[::2]
    assert list(read_names(folder, 1)) == [(item.index, item.id) for item in items]
    assert find_id(folder, 1, "".join(ids) + "!") is None


def test_an_outcome_is_read_out_of_its_batch_and_a_parked_one_too(folder: RunFolder) -> None:
    folder.write_plan(plan(batch_size=2))
    folder.freeze_items(1, iter([Item(f"i{n}", n * 3, n) for n in range(5)]))
    outcomes = [Outcome(f"i{n}", n * 3, State.OK, output=n) for n in range(4)]
    folder.write_batch(1, 0, outcomes[:2], OUTPUT)
    folder.park_batch(1, 1, outcomes[2:3], OUTPUT)

    places = [find_id(folder, 1, f"i{n}") for n in range(5)]
    found = [read_outcome(folder, place) for place in places if place]

    assert [one.output if one else None for one in found] == [0, 1, 2, None, None]


def test_a_step_that_has_not_begun_has_no_items(folder: RunFolder) -> None:
    assert find_id(folder, 1, "a") is None
    assert list(read_names(folder, 1)) == []


def test_items_that_were_edited_by_hand_are_refused_with_their_line(folder: RunFolder) -> None:
    folder.freeze_items(1, iter([Item("a", 0, 1)]))
    folder.files.write("state/01_items.jsonl", b'{"index": 0, "id": "a"}\n')

    with pytest.raises(StoreError, match=r"01_items\.jsonl:1: broken"):
        find_id(folder, 1, "a")


def test_marks_are_read_back_and_the_last_one_of_an_item_holds(folder: RunFolder) -> None:
    put_mark(folder, "a", Mark(Verdict.BAD, "too long", "2026-01-20T10:00:00.000Z"))
    put_mark(folder, "ü/../b", Mark(Verdict.GOOD, "", ""))
    put_mark(folder, "a", Mark(Verdict.GOOD, "fine", ""))

    assert marks_of(folder) == {
        "a": Mark(Verdict.GOOD, "fine", ""), "ü/../b": Mark(Verdict.GOOD, "", ""),
    }  # fmt: skip


def test_people_who_mark_at_the_same_moment_all_get_their_marks_in(folder: RunFolder) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: put_mark(folder, f"i{n}", Mark(Verdict.BAD, "", "")), range(24)))

    assert sorted(marks_of(folder)) == sorted(f"i{n}" for n in range(24))
