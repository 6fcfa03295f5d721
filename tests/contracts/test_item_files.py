"""Items of a step with very many share files, and are found in them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchq.outcome import Measured, Outcome, SentPrompt, State
from batchq.plan import Item, OutputSpec
from batchq.store import RunFolder, itemfiles
from batchq.store.itemfiles import find_output, find_prompt

OUTPUT = OutputSpec("a.json", id_field="n")


def outcome(index: int) -> Outcome:
    prompts = (SentPrompt("", f"What is {index}? \u00e9"),)
    return Outcome(f"A/{index}", index, State.OK, {"is": index}, prompts=prompts)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> RunFolder:
    monkeypatch.setattr(itemfiles, "PACKED_ABOVE", 3)
    made = RunFolder.open(str(tmp_path / "v0"))
    made.freeze_items(1, iter([Item(f"A/{index}", index, {}) for index in range(4)]))
    made.freeze_items(2, iter([Item(f"A/{index}", index, {}) for index in range(3)]))
    return made


def test_a_step_with_many_items_has_a_file_a_batch_and_no_folder_an_item(folder):
    folder.write_batch(1, 1, [outcome(3), outcome(2)], OUTPUT)

    assert sorted(path for path in folder.files.walk() if "state" not in path) == [
        "packed/01_items/000001.jsonl",
        "packed/01_prompts/000001.jsonl",
    ]
    assert find_output(folder.files, 1, 1, "A/2") == (
        "packed/01_items/000001.jsonl",
        {"n": 3, "is": 2},
    )
    path, text = find_prompt(folder.files, 1, 1, "A/3")
    assert (path, text[:10]) == ("packed/01_prompts/000001.jsonl", "What is 3?")
    assert find_output(folder.files, 1, 0, "A/0") is None
    assert find_prompt(folder.files, 1, 1, "A/9") is None


def test_a_step_with_few_items_has_a_file_an_item(folder):
    folder.write_batch(2, 0, [outcome(0)], OUTPUT)

    path, value = find_output(folder.files, 2, 0, "A/0")
    assert path.startswith("items/")
    assert value == {"n": 1, "is": 0}
    path, text = find_prompt(folder.files, 2, 0, "A/0")
    assert path.startswith("prompts/")
    assert text.startswith("What is 0?")


def test_prompts_of_items_that_had_ended_outlive_a_retry_of_others(folder):
    folder.park_batch(1, 0, [outcome(0)], OUTPUT)

    folder.write_batch(1, 0, [replace(outcome(0), prompts=()), outcome(1)], OUTPUT)

    assert find_prompt(folder.files, 1, 0, "A/0")
    assert find_prompt(folder.files, 1, 0, "A/1")


def test_what_was_measured_of_a_packed_item_stands_in_its_line(folder):
    folder.write_batch(1, 0, [replace(outcome(0), measured=Measured(1.5))], OUTPUT)

    line = next(iter(itemfiles._lines(folder.files, "packed/01_items/000000.jsonl")))

    assert line["stats"]["duration_s"] == 1.5


def test_a_file_that_was_broken_by_hand_is_told_apart_from_one_that_is_not_there(folder):
    folder.write_batch(2, 0, [outcome(0)], OUTPUT)
    path, _ = find_output(folder.files, 2, 0, "A/0")
    folder.files.write(path, b"{")

    assert find_output(folder.files, 2, 0, "A/0") == (path, None)
