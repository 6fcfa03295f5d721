"""What holds for a run folder on a disk, in fsspec's memory, and on a real S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchq.errors import PlanError, RunNotFound, StoreError
from batchq.outcome import Attempt, ItemError, Outcome, SentPrompt, State, Summary, Usage
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
from batchq.progress import RunState
from batchq.records import RunRecord
from batchq.store import Outputs, RunFolder, safe_name
from batchq.store.faults import explained

SPEC = OutputSpec("problems.json", id_field="problem_id", source_id_field="template_id")


@pytest.fixture
def outputs(outputs_url: str) -> Outputs:
    return Outputs(outputs_url)


@pytest.fixture
def folder(outputs: Outputs) -> RunFolder:
    return outputs.create_version("generator_module_4")


def ok(index: int, output: Any = None, item_id: str = "", prompts: Any = ()) -> Outcome:
    return Outcome(
        item_id or str(4001 + index),
        index,
        State.OK,
        output={"question": f"Où? {index}"} if output is None else output,
        attempts=(Attempt(1, 1.0, 0.5),),
        usage=Usage(1, 10, 5, 7),
        prompts=prompts,
    )


def bad(index: int) -> Outcome:
    error = ItemError("timeout", "no answer in 90 s")
    tries = (Attempt(1, 1.0, 0.5, error=error), Attempt(2, 2.0, 0.5, error=error))
    return Outcome(str(4001 + index), index, State.FAILED, error=error, attempts=tries)


def plan_of(*outputs: OutputSpec) -> Plan:
    steps = tuple(
        StepPlan(
            spec=StepSpec(number, f"step{number}", (StageSpec("", "task", task="m:f"),)),
            input=InputSpec(), output=output, pacing=Pacing(), queue="cpu", needs=(),
            tolerance=Tolerance(), items=3, items_are_estimated=False, batches=1, calls=0,
            input_tokens=0, output_tokens=0, cost_usd=None, duration_s=1.0, bound_by="cpu",
        )
        for number, output in enumerate(outputs, 1)
    )  # fmt: skip
    return Plan(
        name="generator", pipeline="generator_module_4", labels={"module": 4}, status="beta",
        notes="first", output_dir="outputs", manifest_path="m.yaml", base_dir=".", params={},
        steps=steps, hashes={},
    )  # fmt: skip


RECORD = RunRecord(
    run="run1", pipeline="generator_module_4", version="v0", state=RunState.COMPLETED,
    status="beta", notes="first", mode="initial", base_version="", folder="",
    created_at="2026-01-20T14:30:00.000Z", ended_at="2026-01-20T14:32:05.300Z",
    duration_s=125.3, items=3, summary=Summary(ok=2, failed=1, usage=Usage(3, 30, 15, 21)),
)  # fmt: skip


def read_json(folder: RunFolder, path: str) -> Any:
    return json.loads(folder.files.read(path))


def test_items_are_frozen_once_and_read_back_batch_by_batch(folder: RunFolder) -> None:
    items = [Item(f"id{i}", i, {"text": f"Zeile\n{i} ü", "half": "\ud800"}) for i in range(7)]

    counts = [folder.freeze_items(1, iter(items)), folder.freeze_items(1, iter([]))]

    assert counts == [7, 7]
    assert folder.item_count(1) == 7
    assert [list(folder.batch(1, number, 3)) for number in range(4)] == [
        items[:3], items[3:6], items[6:], [],
    ]  # fmt: skip


def test_a_step_that_is_not_frozen_has_no_count_and_no_batches(folder: RunFolder) -> None:
    assert folder.item_count(2) is None
    with pytest.raises(StoreError, match="not frozen"):
        folder.batch(2, 0, 5)


def test_a_freeze_that_died_between_its_two_files_goes_on_with_the_items_it_wrote(
    folder: RunFolder,
) -> None:
    folder.freeze_items(1, iter([Item("a", 0, 1), Item("b", 1, 2)]))
    folder.files.remove("state/01_offsets.bin")

    count = folder.freeze_items(1, iter([Item("other", 0, 9)]))

    assert count == 2
    assert [item.id for item in folder.batch(1, 0, 5)] == ["a", "b"]


def test_a_freeze_whose_items_fail_half_way_leaves_nothing(folder: RunFolder) -> None:
    def items() -> Iterator[Item]:
        yield Item("a", 0, 1)
        raise PlanError("line 2 is broken")

    with pytest.raises(PlanError, match="line 2"):
        folder.freeze_items(1, items())
    with pytest.raises(PlanError, match="'b' is not JSON"):
        folder.freeze_items(1, iter([Item("b", 0, float("nan"))]))

    assert folder.item_count(1) is None
    assert not folder.files.exists("state/01_items.jsonl")


def test_an_item_that_no_message_holds_is_refused_by_its_id(folder: RunFolder) -> None:
    with pytest.raises(PlanError, match=r"item 'b' has 16,777,2\d\d bytes, 16,777,216 are"):
        folder.freeze_items(1, [Item("b", 0, "x" * 16 * 1024 * 1024)])


def test_items_changed_after_the_submit_are_an_error_with_the_file_in_it(
    folder: RunFolder,
) -> None:
    folder.freeze_items(1, iter([Item("a", 0, 1), Item("b", 1, 2)]))
    folder.files.write("state/01_items.jsonl", b'{"id": "a"}\n')

    with pytest.raises(StoreError, match=r"01_items\.jsonl: broken"):
        folder.batch(1, 0, 2)


def test_a_batch_leaves_item_files_prompts_and_a_record_that_reads_back(
    folder: RunFolder,
) -> None:
    outcomes = [bad(1), ok(0, prompts=(SentPrompt("", "Ask it"),))]

    assert folder.write_batch(1, 0, outcomes, SPEC)

    assert read_json(folder, "items/4001/01_output.json") == {
        "problem_id": 1, "source_template_id": "4001", "question": "Où? 0",
    }  # fmt: skip
    assert "Où" in folder.files.read("items/4001/01_output.json").decode()
    assert folder.files.names("items") == ["4001"]
    assert folder.files.read("prompts/01_prompt_4001.md") == b"Ask it"
    assert folder.collated_batches(1) == {0}
    assert list(folder.outcomes(1)) == [ok(0), bad(1)]


def test_prompts_of_several_stages_stand_under_their_names(folder: RunFolder) -> None:
    prompts = (SentPrompt("normalize", "one"), SentPrompt("review", "two"))

    folder.write_batch(1, 0, [ok(0, prompts=prompts)], SPEC)

    assert folder.files.read("prompts/01_prompt_4001.md").decode() == (
        "# normalize\n\none\n\n# review\n\ntwo\n"
    )


def test_a_batch_that_is_there_is_never_written_again(folder: RunFolder) -> None:
    folder.write_batch(1, 0, [ok(0)], SPEC)

    assert not folder.write_batch(1, 0, [ok(0, {"question": "another"})], SPEC)

    assert list(folder.outcomes(1)) == [ok(0)]
    assert read_json(folder, "items/4001/01_output.json")["question"] == "Où? 0"


def test_a_collate_that_died_before_the_record_is_done_again(folder: RunFolder) -> None:
    folder.write_batch(1, 0, [ok(0)], SPEC)
    folder.files.remove("state/01_batches/000000.jsonl")

    assert folder.collated_batches(1) == set()
    assert folder.write_batch(1, 0, [ok(0)], SPEC)
    assert list(folder.outcomes(1)) == [ok(0)]


def test_batches_that_end_out_of_order_are_collated_in_input_order(folder: RunFolder) -> None:
    for number in (1, 10, 0):
        folder.write_batch(1, number, [ok(2 * number + 1), ok(2 * number)], SPEC)

    result = folder.collate(1, SPEC)

    assert (result.written, result.dropped_duplicates, result.errors) == (6, 0, 0)
    rows = read_json(folder, "collated/01_problems.json")
    assert [row["problem_id"] for row in rows] == [1, 2, 3, 4, 21, 22]


def test_failed_items_stand_in_the_errors_file_and_not_in_the_collated_one(
    folder: RunFolder,
) -> None:
    folder.write_batch(1, 0, [ok(0), bad(1), ok(2)], SPEC)

    result = folder.collate(1, SPEC)
    count = folder.write_errors(1)

    assert (result.written, result.errors, count) == (2, 1, 1)
    assert [row["problem_id"] for row in read_json(folder, "collated/01_problems.json")] == [1, 3]
    assert read_json(folder, "01_errors.json") == [
        {"item_id": "4002", "item_index": 1, "error": "no answer in 90 s", "step": 1,
         "kind": "timeout", "attempts": 2},
    ]  # fmt: skip


def test_no_errors_file_is_left_where_no_item_failed(folder: RunFolder) -> None:
    folder.files.write("01_errors.json", b"[stale]")
    folder.write_batch(1, 0, [ok(0)], SPEC)

    assert folder.write_errors(1) == 0

    assert not folder.files.exists("01_errors.json")


def test_the_next_step_reads_what_this_one_collated(folder: RunFolder) -> None:
    folder.write_plan(plan_of(SPEC))
    folder.write_batch(1, 0, [ok(0), bad(1)], SPEC)

    rows = list(folder.read_collated(1))

    assert rows == [{"problem_id": 1, "source_template_id": "4001", "question": "Où? 0"}]


@pytest.mark.parametrize("file", ["graph.json", "graph.yaml"])
@pytest.mark.parametrize("content", [{"nodes": [1], "edges": {}}, [{"a": 1}, {"b": "no"}]])
def test_what_a_collate_function_gave_is_written_and_read_back(
    outputs: Outputs, file: str, content: Any
) -> None:
    folder = outputs.create_version("graphs")
    spec = OutputSpec(file, collate="m:merge")
    folder.write_plan(plan_of(spec))

    folder.write_collated(1, spec, content)

    rows = content if isinstance(content, list) else [content]
    assert list(folder.read_collated(1)) == rows


def test_what_a_pause_cut_off_is_kept_until_its_batch_is_collated(folder: RunFolder) -> None:
    outcome = ok(0, prompts=(SentPrompt("", "Ask it"),))

    folder.park_batch(1, 3, [outcome], SPEC)

    assert folder.parked(1, 3) == [outcome]
    assert folder.collated_batches(1) == set()
    assert list(folder.outcomes(1)) == [outcome]
    folder.write_batch(1, 3, [outcome, ok(1)], SPEC)
    folder.park_batch(1, 3, [outcome], SPEC)
    assert folder.parked(1, 3) == []


def test_steps_are_done_when_somebody_says_so(folder: RunFolder) -> None:
    folder.mark_done(1)
    folder.mark_done(12)

    assert folder.done_steps() == {1, 12}


def test_summaries_add_the_collated_batches_up(folder: RunFolder) -> None:
    folder.write_batch(1, 0, [ok(0), bad(1)], SPEC)
    folder.write_batch(1, 1, [ok(2)], SPEC)

    summary = folder.summary(1)

    assert (summary.ok, summary.failed, summary.retries) == (2, 1, 1)
    assert summary.usage == Usage(2, 20, 10, 14)
    assert folder.summary(2) == Summary()


def test_a_plan_reads_back_as_it_was_written(folder: RunFolder) -> None:
    plan = plan_of(SPEC, OutputSpec("two.csv"))

    folder.write_plan(plan)

    assert RunFolder.open(folder.url).read_plan() == plan


def test_metadata_has_the_fields_that_people_know_and_totals(folder: RunFolder) -> None:
    plan = plan_of(SPEC)

    folder.write_metadata(RECORD, plan, {1: RECORD.summary}, "told to stop")

    told = read_json(folder, "metadata.json")
    assert {
        "version": "v0", "pipeline_name": "generator", "mode": "initial", "base_version": None,
        "module_number": 4, "path_letter": None, "pipeline_status": "beta", "notes": "first",
        "duration_seconds": 125.3, "status": "completed", "logs": ["told to stop"],
        "full_pipeline_name": "generator_module_4", "timestamp": "2026-01-20T14:30:00.000Z",
    }.items() <= told.items()  # fmt: skip
    assert told["totals"]["items"] == 3
    assert told["totals"]["cost_usd"] == pytest.approx(21e-9)
    assert told["stats"]["step1"]["failed"] == 1
    assert folder.read_metadata().full_pipeline_name == "generator_module_4"


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"version": "v0"}'])
def test_broken_metadata_is_an_error_that_names_the_file(folder: RunFolder, text: bytes) -> None:
    folder.files.write("metadata.json", text)

    with pytest.raises(StoreError, match=r"metadata\.json: broken.*mend"):
        folder.read_metadata()


def test_a_broken_record_is_an_error_that_names_file_and_line(folder: RunFolder) -> None:
    folder.write_batch(1, 0, [ok(0)], SPEC)
    record = folder.files.read("state/01_batches/000000.jsonl")
    folder.files.write("state/01_batches/000000.jsonl", record + record[:20])

    with pytest.raises(StoreError, match=r"000000\.jsonl:2: broken"):
        list(folder.outcomes(1))


def test_the_log_is_read_back_in_order_without_a_line_that_was_cut_off(
    folder: RunFolder,
) -> None:
    folder.append_log("started", at=1.0, step=1)
    folder.append_log("ended", at=2.0, level="warning")
    folder.files.append("state/log", b'{"ts": 3.0, "ev')
    folder.append_log("lost with it", at=4.0)

    assert list(folder.read_log())[:2] == [
        {"ts": 1.0, "level": "info", "event": "started", "step": 1},
        {"ts": 2.0, "level": "warning", "event": "ended"},
    ]  # on a disk the cut line takes the next one with it; object stores keep lines apart


@pytest.mark.parametrize(
    "item_id", ["../../etc/passwd", "a/b", "CON", "x" * 300, "ключ 1", ".", "", "a\0b", "-rf"]
)
def test_a_hostile_id_stays_inside_the_folder(folder: RunFolder, item_id: str) -> None:
    outcome = Outcome(item_id, 0, State.OK, output={}, prompts=(SentPrompt("", "x"),))

    folder.write_batch(1, 0, [outcome], SPEC)

    name = safe_name(item_id)
    assert folder.files.names("items") == [name]
    assert folder.files.names(f"items/{name}") == ["01_output.json"]
    assert folder.files.names("prompts") == [f"01_prompt_{name}.md"]
    assert next(folder.outcomes(1)).item_id == item_id


def test_an_item_of_five_megabytes_goes_in_and_comes_out(folder: RunFolder) -> None:
    text = "ü" * 2_500_000

    folder.freeze_items(1, iter([Item("small", 0, 1), Item("big", 1, text), Item("end", 2, 3)]))
    folder.write_batch(1, 0, [ok(0, {"text": text})], SPEC)
    folder.collate(1, SPEC)

    assert folder.batch(1, 1, 1)[0].data == text
    assert folder.batch(1, 2, 1)[0].data == 3
    assert read_json(folder, "collated/01_problems.json")[0]["text"] == text


def test_versions_count_up_and_those_without_a_plan_are_not_shown(outputs: Outputs) -> None:
    first, second, third = (outputs.create_version("p") for _ in range(3))
    first.write_plan(plan_of(SPEC))
    third.write_plan(plan_of(SPEC))

    assert [one.version for one in (first, second, third)] == ["v0", "v1", "v2"]
    assert outputs.versions("p") == ["v0", "v2"]
    assert outputs.pipelines() == ["p"]


def test_a_discarded_version_is_gone_and_its_number_is_free(outputs: Outputs) -> None:
    folder = outputs.create_version("p")
    folder.write_plan(plan_of(SPEC))

    folder.discard()

    assert outputs.versions("p") == []
    assert outputs.create_version("p").version == "v0"


def test_latest_names_the_newest_version_it_was_pointed_at(outputs: Outputs) -> None:
    for _ in range(2):
        outputs.create_version("p").write_plan(plan_of(SPEC))
    found = [outputs.latest("p")]

    for version in ("v0", "v1", "v0"):
        outputs.point_latest("p", version)
        found.append(outputs.latest("p"))

    assert found == [None, "v0", "v1", "v1"]
    assert outputs.open_version("p").version == "v1"
    assert outputs.open_version("p", "v0").version == "v0"


def test_a_version_that_is_not_there_is_an_error_with_those_that_are(outputs: Outputs) -> None:
    outputs.create_version("problem_generator").write_plan(plan_of(SPEC))

    with pytest.raises(RunNotFound, match="has no v7; there are v0"):
        outputs.open_version("problem_generator", "v7")
    with pytest.raises(RunNotFound, match="did you mean problem_generator"):
        outputs.open_version("problem_genrator")


def test_a_folder_is_opened_by_its_url(folder: RunFolder) -> None:
    folder.write_batch(1, 0, [ok(0)], SPEC)

    again = RunFolder.open(folder.url)

    assert again.version == "v0"
    assert list(again.outcomes(1)) == [ok(0)]


# --- a disk alone: links, temporary files, processes ---


@pytest.fixture
def disk(tmp_path: Path) -> RunFolder:
    return Outputs(str(tmp_path / "outputs")).create_version("p")


def test_latest_is_a_relative_link_and_a_stray_one_of_a_crash_does_no_harm(
    tmp_path: Path,
) -> None:
    outputs = Outputs(str(tmp_path))
    outputs.create_version("p").write_plan(plan_of(SPEC))
    (tmp_path / "p" / ".latest-v0").symlink_to("v0")

    outputs.point_latest("p", "v0")

    assert (tmp_path / "p" / "latest").readlink() == Path("v0")
    assert not (tmp_path / "p" / ".latest-v0").exists()


def test_a_writer_that_fails_leaves_the_old_file_and_no_temporary_one(disk: RunFolder) -> None:
    disk.files.write("plan.json", b"old")

    def write_half() -> None:
        with disk.files.writer("plan.json") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()

    assert disk.files.read("plan.json") == b"old"
    assert list(Path(disk.url, "state/tmp").iterdir()) == []


def test_temporary_files_of_the_dead_are_removed_at_the_next_open_those_of_the_living_are_not(
    disk: RunFolder,
) -> None:
    disk.mark_done(1)
    tmp = Path(disk.url, "state/tmp")
    (tmp / "dead").write_bytes(b"half")
    (tmp / "living").write_bytes(b"half")
    long_ago = time.time() - 2 * 3600
    os.utime(tmp / "dead", (long_ago, long_ago))

    again = RunFolder.open(disk.url)

    assert list(tmp.iterdir()) == [tmp / "living"]
    assert again.done_steps() == {1}


@pytest.mark.parametrize("link", ["items", "items/4001", "state/01_batches"])
def test_links_inside_the_folder_are_not_followed_in_writing(
    disk: RunFolder, tmp_path: Path, link: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    path = Path(disk.url, link)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(outside)

    with pytest.raises(StoreError, match="link"):
        disk.write_batch(1, 0, [ok(0)], SPEC)

    assert list(outside.iterdir()) == []


def test_a_link_in_the_place_of_an_item_file_is_replaced_not_written_through(
    disk: RunFolder, tmp_path: Path
) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    path = Path(disk.url, "items/4001/01_output.json")
    path.parent.mkdir(parents=True)
    path.symlink_to(target)

    disk.write_batch(1, 0, [ok(0)], SPEC)

    assert target.read_text() == "mine"
    assert not path.is_symlink()


@pytest.mark.parametrize(
    "link",
    [
        "state",
        "state/01_batches",
        "state/01_batches/000000.jsonl",
        "plan.json",
        "state/01_done.json",
    ],
)
def test_links_inside_the_folder_are_not_followed_in_reading(
    disk: RunFolder, tmp_path: Path, link: str
) -> None:
    disk.write_plan(plan_of(SPEC))
    disk.write_batch(1, 0, [ok(0)], SPEC)
    disk.mark_done(1)
    path = Path(disk.url, link)
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    again = RunFolder.open(disk.url) if link != "state" else disk

    with pytest.raises(StoreError, match="link"):
        (again.read_plan(), again.read_batch(1, 0), again.summary(1))


def test_an_output_folder_under_a_file_is_an_error_with_path_and_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match=r"file/outputs/p: .*output_dir"):
        Outputs(str(tmp_path / "file" / "outputs")).create_version("p")


def test_an_output_folder_that_cannot_be_made_is_an_error_with_path_and_advice() -> None:
    with pytest.raises(StoreError, match=r"/proc/outputs.*output_dir"):
        Outputs("/proc/outputs").create_version("p")


def test_an_unknown_kind_of_url_is_an_error() -> None:
    with pytest.raises(StoreError, match="nosuch://x"):
        Outputs("nosuch://x")


def test_a_full_disk_is_an_error_that_says_what_to_do() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")

    def write() -> None:
        with explained("out"), full.open("wb", buffering=0) as file:
            file.write(b"x")

    with pytest.raises(StoreError, match=r"disk is full.*batchq resume"):
        write()


def test_processes_that_submit_at_once_get_a_version_each(tmp_path: Path) -> None:
    code = (
        "import sys; from batchq.store import Outputs\n"
        "outputs = Outputs(sys.argv[1]); sys.stdin.read()\n"
        "print(*(outputs.create_version('p').version for _ in range(10)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None

    claimed = " ".join(process.communicate(timeout=60)[0] for process in processes).split()

    assert sorted(claimed, key=lambda name: int(name[1:])) == [f"v{n}" for n in range(30)]


def test_of_processes_that_collate_the_same_batch_one_writes_it(tmp_path: Path) -> None:
    folder = Outputs(str(tmp_path)).create_version("p")
    code = (
        "import sys; from batchq.store import RunFolder\n"
        "from batchq.outcome import Outcome, State\n"
        "from batchq.plan import OutputSpec\n"
        "folder = RunFolder.open(sys.argv[1]); sys.stdin.read()\n"
        "print(*(folder.write_batch(1, n, [Outcome('a', 0, State.OK, output=sys.argv[2])],\n"
        "        OutputSpec('x.json')) for n in range(20)))"
    )
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, folder.url, name], stdin=pipe, stdout=pipe, text=True
        )
        for name in ("one", "two")
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None

    answers = [process.communicate(timeout=60)[0].split() for process in processes]

    writers = [outcome.output for outcome in folder.outcomes(1)]
    assert len(writers) == 20
    for number, writer in enumerate(writers):
        assert answers[0][number] == str(writer == "one")
        assert answers[1][number] == str(writer == "two")
