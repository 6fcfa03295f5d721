"""Looking at versions as their users do: list, compare, label, mark, failures, explain.

The versions are written as a run writes them, and the command line runs in this process, so that no
test waits for one.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from batchq.__main__ import main
from batchq.cli.output import local_time
from batchq.engine.lineage import redo_steps
from batchq.outcome import Attempt, ItemError, Outcome, SentPrompt, State, Summary, Usage
from batchq.plan import (
    InputSpec,
    Item,
    OutputSpec,
    Pacing,
    Plan,
    Rerun,
    StageSpec,
    StepPlan,
    StepSpec,
    Tolerance,
)
from batchq.progress import RunState
from batchq.records import RunRecord
from batchq.store import Outputs, RunFolder, open_catalog
from batchq.store.marks import Mark, Verdict, put_mark, read_marks
from batchq.store.records import batch_record

NAME = "problem_generator_module_4"
HOME = f"outputs/{NAME}"
IDS = [str(4001 + number) for number in range(14)]
STARTED = 1_768_900_000.0


def step_of(number: int, output: OutputSpec, source: str, needs: tuple[str, ...]) -> StepPlan:
    return StepPlan(
        spec=StepSpec(number, f"step{number}", (StageSpec("", "task", task="m:f"),)),
        input=InputSpec(source=source), output=output, pacing=Pacing(batch_size=5), queue="cpu",
        needs=needs, tolerance=Tolerance(), items=14, items_are_estimated=False, batches=3,
        calls=14, input_tokens=0, output_tokens=0, cost_usd=None, duration_s=1.0, bound_by="cpu",
    )  # fmt: skip


STEPS = (
    step_of(1, OutputSpec("a.json", id_field="n", source_id_field="template_id"), "in.json", ()),
    step_of(2, OutputSpec("b.json"), "", ("step1",)),
)


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Studio:
    """A folder with versions of one pipeline, and the command line in it."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self._monkeypatch, self._capsys = monkeypatch, capsys
        monkeypatch.chdir(folder)
        (folder / ".batchq").mkdir()
        self.outputs = Outputs(str(folder / "outputs"))
        self.catalog = open_catalog(f"sqlite:///{folder}/.batchq/catalog.sqlite")

    def run(self, *arguments: str) -> Done:
        """Runs `batchq` with these arguments."""
        self._monkeypatch.setattr(sys, "argv", ["batchq", *arguments])
        self._capsys.readouterr()
        code = main()
        return Done(code, *self._capsys.readouterr())

    def add(
        self,
        outputs: dict[str, Any],
        *,
        base: str = "",
        state: RunState = RunState.COMPLETED,
        status: str = "beta",
        notes: str = "",
    ) -> RunFolder:
        """Writes the next version; an output that is an ItemError is a failed item."""
        folder = self.outputs.create_version(NAME)
        plan = Plan(
            name="problem_generator", pipeline=NAME, labels={"module": 4}, status=status,
            notes=notes, output_dir="outputs", manifest_path="m.yaml", base_dir=str(self.folder),
            params={}, steps=STEPS, hashes={},
        )  # fmt: skip
        if base:
            chosen = {1: tuple(IDS.index(item) for item in outputs)}
            before = self.outputs.open_version(NAME, base).url
            folder.write_rerun(Rerun(base, before, chosen, redo_steps(plan, chosen)))
        folder.write_plan(plan)
        run = f"run{folder.version}"
        summaries = {}
        for step in STEPS:
            number = step.spec.number
            summaries[number] = self._run_step(folder, run, step, outputs)
        total = sum(summaries.values(), Summary())
        record = RunRecord(
            run=run, pipeline=NAME, version=folder.version, state=state, status=status,
            notes=notes, mode="rerun" if base else "initial", base_version=base,
            folder=folder.url, created_at="2026-01-20T10:00:00.000Z", duration_s=125.3,
            items=len(outputs), summary=total,
        )  # fmt: skip
        folder.write_metadata(record, plan, summaries)
        self.catalog.put_run(record)
        return folder

    def _run_step(
        self, folder: RunFolder, run: str, step: StepPlan, outputs: dict[str, Any]
    ) -> Summary:
        number, size = step.spec.number, step.pacing.batch_size
        items = [
            Item(item if number == 1 else str(IDS.index(item) + 1), IDS.index(item), {"for": item})
            for item, output in outputs.items()
            if number == 1 or not isinstance(output, ItemError)
        ]
        folder.freeze_items(number, iter(items))
        for batch in range(-(-len(items) // size)):
            here = items[batch * size : (batch + 1) * size]
            outcomes = [_outcome(item, outputs[IDS[item.index]]) for item in here]
            folder.write_batch(number, batch, outcomes, step.output)
            self.catalog.put_batch(batch_record(run, step.spec, batch, outcomes), outcomes)
        folder.collate(number, step.output)
        folder.mark_done(number)
        return folder.summary(number)


def _outcome(item: Item, output: Any) -> Outcome:
    usage = Usage(1, 100, 20, 1_000_000)
    error = output if isinstance(output, ItemError) else None
    slow = ItemError("rate_limit", "HTTP 429: slow down")
    tries = (
        Attempt(1, STARTED, 0.5, error=slow),
        Attempt(2, STARTED + 3, 0.5, waited_s=2.5, error=error, usage=usage, model="small"),
    )
    return Outcome(
        item.id, item.index, State.FAILED if error else State.OK, error=error, usage=usage,
        output=None if error else output, attempts=tries, started_at=STARTED,
        ended_at=STARTED + 3.5, prompts=(SentPrompt("", f"Write a problem for {item.id}."),),
    )  # fmt: skip


def problem(question: str) -> dict[str, Any]:
    return {"question": question, "workspace": {"ticks": len(question)}}


def broken(item: str) -> ItemError:
    return ItemError("schema", f"$.workspace: '{item}' is no line of {int(item)} ticks")


@pytest.fixture
def studio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Studio:
    """v0 with 14 items of which 4007 and 4009 failed; v1 with 4002 and 4007 done again."""
    made = Studio(tmp_path, monkeypatch, capsys)
    first = {item: problem("Place one third.") for item in IDS}
    made.add(
        first | {item: broken(item) for item in ("4007", "4009")},
        status="alpha",
        notes="First run with new template structure",
    )
    made.add(
        {"4002": problem("Place one half."), "4007": problem("Place two thirds.")},
        base="v0",
        notes="Fixed prompt issues for templates 4002 and 4007",
    )
    return made


def ok(done: Done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(done: Done, code: int) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "fault in batchq" not in done.stderr
    return done.stderr


def test_compare_is_laid_out_as_in_the_guide(studio: Studio) -> None:
    created = local_time("2026-01-20T10:00:00.000Z")

    text = ok(studio.run("compare", NAME, "v0", "v1"))

    assert text.startswith(
        f"""\
{"=" * 70}
COMPARING: {NAME}
v0 vs v1
{"=" * 70}

Version Info:
  v0:
    Created: {created}
    Status: alpha
    Notes: First run with new template structure
    Mode: initial
    Duration: 125.3s

  v1:
    Created: {created}
    Status: beta
    Notes: Fixed prompt issues for templates 4002 and 4007
    Mode: rerun
    Base: v0
    Duration: 125.3s

Items:
  Total in v0: 14
  Total in v1: 2
  In both: 2
  Only in v0: 4001, 4003-4006, 4008-4014
  Only in v1: (none, merged with v0)
"""
    )


def test_compare_tells_what_a_rerun_changed_by_the_ids_that_people_know(studio: Studio) -> None:
    first = ok(studio.run("compare", NAME, "v0", "v1", "--step", "step1", "--detail"))
    last = ok(studio.run("compare", NAME, "v0", "v1"))

    assert "Fixed (failed -> ok): 1  (4007)" in first
    assert "Changed: 1  (4002)" in first
    assert "Failed in both: 1  (4009)" in first
    assert "Same: 11" in first
    assert '    question: "Place one third." -> "Place one half."' in first
    assert "    workspace__ticks: 16 -> 15" in first
    assert "    error before: schema: $.workspace: '4007' is no line of 4007 ticks" in first
    assert "Changes in step2 (v1 merged with v0):" in last
    assert "Added: 1  (4007)" in last


def test_compare_puts_regressions_first_and_reruns_of_reruns_are_merged(studio: Studio) -> None:
    studio.add({"4003": broken("4003"), "4004": problem("Place one sixth.")}, base="v1")

    seen = json.loads(ok(studio.run("compare", NAME, "v0", "v2", "--step", "step1", "--json")))

    assert [(one["id"], one["change"]) for one in seen["changes"]] == [
        ("4003", "regressed"), ("4007", "fixed"), ("4002", "changed"), ("4004", "changed"),
        ("4009", "failed"),
    ]  # fmt: skip
    assert seen["is_merged"] is True
    assert seen["fields"] == {"question": 2, "workspace__ticks": 1}
    assert [one["cost_usd"] for one in seen["versions"]] == pytest.approx([0.026, 0.003])


def test_compare_looks_at_chosen_items_by_the_id_of_any_step(studio: Studio) -> None:
    arguments = ("compare", NAME, "v0", "v1", "--step", "step1", "--json", "--detail")

    seen = [json.loads(ok(studio.run(*arguments, "--items", one))) for one in ("4001,4002", "2")]

    assert [one["counts"]["same"] for one in seen] == [1, 0]
    (change,) = seen[1]["changes"]
    assert change["id"] == "4002"
    assert change["fields"][0] == {
        "field": "question", "old": "Place one third.", "new": "Place one half.",
    }  # fmt: skip


def test_the_page_of_a_comparison_loads_nothing_and_shows_markup_as_text(studio: Studio) -> None:
    studio.add({"4001": problem("<script>alert(1)</script>")}, base="v1")

    page = ok(studio.run("compare", NAME, "v1", "v2", "--format", "html", "--step", "step1"))

    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert "http" not in page
    assert "prefers-color-scheme: dark" in page
    assert "alert" in page


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((NAME, "v0", "v9"), 7, f"did you mean {NAME}@v"),
        (("problem_generator_modul_4", "v0", "v1"), 7, NAME),
        ((NAME, "v0", "one"), 2, "'one' is no version"),
        ((NAME, "v0", "v1", "--step", "stepp1"), 2, "did you mean step1?"),
        ((NAME, "v0", "v1", "--items", "40002"), 7, "nearest: 4002"),
    ],
)
def test_compare_refuses_what_is_not_there(
    studio: Studio, arguments: tuple[str, ...], code: int, words: str
) -> None:
    assert words in refused(studio.run("compare", *arguments), code)


def test_a_version_that_is_gone_half_deleted_or_broken_is_named(studio: Studio) -> None:
    home = studio.folder / HOME
    commands = [("compare", NAME, "v0", "v1"), ("explain", f"{NAME}@v1", "4001")]

    (home / "v0/metadata.json").write_text('{"version": "v0", ')
    broken_json = refused(studio.run("compare", NAME, "v0", "v1"), 6)
    (home / "v0/plan.json").unlink()
    half = [refused(studio.run(*one), 6) for one in commands]
    (home / "v0").rename(home / "gone")
    gone = [refused(studio.run(*one), 7) for one in commands]

    assert "v0/metadata.json: broken" in broken_json
    assert all("has no plan.json: a part of the version was deleted" in one for one in half)
    assert all("which is gone" in one for one in gone)


def test_latest_that_points_nowhere_is_exit_7(studio: Studio) -> None:
    home = studio.folder / HOME
    (home / "latest").symlink_to("v1")
    (home / "v1").rename(home / "elsewhere")

    told = refused(studio.run("compare", NAME, "v0", "latest"), 7)

    assert f"{NAME}@v1" in told
    assert "which is gone" in told


def test_label_changes_metadata_and_list_and_keeps_what_people_added(studio: Studio) -> None:
    path = studio.folder / HOME / "v0/metadata.json"
    told = json.loads(path.read_text()) | {"reviewed_by": "Ana"}
    path.write_text(json.dumps(told))

    ok(studio.run("label", NAME, "v0", "rc", "--note", "Ready"))

    assert json.loads(path.read_text()) == told | {"pipeline_status": "rc", "notes": "Ready"}
    listed = ok(studio.run("list", NAME, "--status", "rc", "final"))
    assert "Versions: 1 (hiding 1)" in listed
    assert "Showing: final, rc" in listed
    assert "  Status: rc\n  Notes: Ready\n  Mode: initial\n  Duration: 125.3s\n" in listed


def test_a_final_version_is_read_only_until_it_is_relabelled(studio: Studio) -> None:
    ok(studio.run("label", NAME, "v1", "final"))

    told = [
        refused(studio.run("mark", f"{NAME}@v1", "4002", "bad"), 2),
        refused(studio.run("retry", f"{NAME}@v1"), 2),
    ]
    ok(studio.run("label", NAME, "v1", "beta"))

    assert all(f"`batchq label {NAME} v1 rc` opens it again" in one for one in told)
    assert "marked bad" in ok(studio.run("mark", f"{NAME}@v1", "4002", "bad"))


@pytest.mark.parametrize(
    ("version", "label", "code", "words"),
    [
        ("v0", "fnal", 2, "did you mean final?"),
        ("v0", "2nd try", 2, "is no label"),
        ("v7", "rc", 7, f"{NAME}@v0"),
        ("v2", "final", 2, "batchq resume"),
    ],
)
def test_label_refuses_what_makes_no_sense(
    studio: Studio, version: str, label: str, code: int, words: str
) -> None:
    studio.add({"4001": problem("x")}, base="v1", state=RunState.PAUSED)

    assert words in refused(studio.run("label", NAME, version, label), code)


def test_marks_are_kept_with_the_version_and_shown(studio: Studio) -> None:
    ok(studio.run("mark", f"{NAME}@v0", "4002", "bad"))
    ok(studio.run("mark", f"{NAME}@v0", "3", "bad", "--note", "too long"))

    marks = json.loads((studio.folder / HOME / "v0/marks.json").read_text())
    assert sorted(marks) == ["4002", "4003"]
    assert "  4003  marked bad  too long" in ok(studio.run("show", f"{NAME}@v0"))
    assert "4003 is marked bad: too long" in ok(studio.run("show", NAME, "v1", "4003"))
    assert "is marked" not in ok(studio.run("show", NAME, "v1", "4002"))


def test_a_rerun_of_the_bad_ones_takes_what_is_marked_and_was_not_redone(studio: Studio) -> None:
    for item in ("4001", "4002"):
        ok(studio.run("mark", f"{NAME}@v0", item, "bad"))
    ok(studio.run("mark", f"{NAME}@v1", "4003", "bad"))

    seen = [
        json.loads(
            ok(studio.run("rerun", NAME, "--from", one, "--marked", "bad", "--dry-run", "--json"))
        )
        for one in ("v0", "v1")
    ]

    assert [one["items"] for one in seen] == [["4001", "4002"], ["4001", "4003"]]


def test_marks_that_are_made_at_once_are_all_kept(studio: Studio) -> None:
    folder = studio.outputs.open_version(NAME, "v0")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: put_mark(folder, item, Mark(Verdict.GOOD, "", "")), IDS))

    assert sorted(read_marks(folder)) == IDS


def test_marks_that_were_broken_by_hand_are_refused_with_their_place(studio: Studio) -> None:
    (studio.folder / HOME / "v1/marks.json").write_text('{"4001": {"verdict": "ugly"}}')

    assert "v1/marks.json: broken: 4001.verdict" in refused(studio.run("show", NAME), 6)


def test_a_mark_of_an_unknown_item_names_the_nearest_ids(studio: Studio) -> None:
    told = refused(studio.run("mark", NAME, "40011", "good"), 7)

    assert f"{NAME}@v1 has no item 40011; nearest: " in told
    assert "4011" in told
    assert not (studio.folder / HOME / "v1/marks.json").exists()


def test_failures_are_grouped_by_their_cause(studio: Studio) -> None:
    text = ok(studio.run("failures", f"{NAME}@v0"))
    (group,) = json.loads(ok(studio.run("failures", f"{NAME}@v0", "--json")))["groups"]
    later = ok(studio.run("failures", f"{NAME}@v1"))

    assert "2 failures of 1 cause" in text
    assert "$.workspace: <text> is no line of <n> ticks" in text
    assert "a retry can help" in text
    assert (group["items"], group["kind"], group["can_retry"]) == (["4007", "4009"], "schema", True)
    assert "items: 4009" in later


def test_explain_tells_one_items_story_over_steps_and_versions(studio: Studio) -> None:
    text = ok(studio.run("explain", NAME, "4001"))
    seen = json.loads(ok(studio.run("explain", NAME, "4007", "--json")))

    assert "lineage  v1 <- v0" in text
    assert "1 step1: ok, 2 attempts, 3.5s, $0.0010, in v0" in text
    assert "attempt 1  0.5s: rate_limit: HTTP 429: slow down" in text
    assert "attempt 2  0.5s after a wait of 2.5s, 100 + 20 tokens, small: ok" in text
    assert f"{HOME}/v0/prompts/01_prompt_4001.md" in text
    assert "Write a problem for 4001." in text
    assert "2 step2 as 1: ok" in text
    assert [one["version"] for one in seen["steps"]] == ["v1", "v1"]
    assert seen["steps"][0]["output"]["source_template_id"] == "4007"
    assert seen["cost_usd"] == pytest.approx(0.002)


def test_explain_says_where_an_item_did_not_come_and_what_was_edited(studio: Studio) -> None:
    (studio.folder / HOME / "v0/items/4001/01_output.json").write_text('{"question": "mine"}')

    failed = ok(studio.run("explain", f"{NAME}@v0", "4007"))
    edited = ok(studio.run("explain", f"{NAME}@v0", "4001"))

    assert "error    schema: $.workspace: '4007' is no line" in failed
    assert "2 step2: did not come here" in failed
    assert "edited by hand" in edited


LOOKS = [
    ("rerun", NAME, "4002", "--from", "v0", "--dry-run"),
    ("rerun", NAME, "--failed", "--from", "v0", "--dry-run"),
    ("show", NAME, "v0"),
    ("status", f"{NAME}@v0"),
    ("failures", f"{NAME}@v0"),
    ("label", NAME, "v0", "rc"),
    ("retry", f"{NAME}@v0", "--dry-run"),
]


@pytest.mark.parametrize("command", LOOKS, ids=lambda one: f"{one[0]} {one[-2]}")
def test_every_command_says_that_a_version_is_half_deleted_or_gone(
    studio: Studio, command: tuple[str, ...]
) -> None:
    home = studio.folder / HOME

    (home / "v0/plan.json").unlink()
    half = refused(studio.run(*command), 6)
    (home / "v0").rename(home / "gone")
    gone = refused(studio.run(*command), 7)

    assert "plan.json" in half
    assert "restore it" in half
    assert "which is gone" in gone
    assert ok(studio.run("list", NAME, "--all")).count("\nv") == 2


@pytest.mark.parametrize(
    "command",
    [("show", NAME, "v0"), ("status", f"{NAME}@v0"), ("label", NAME, "v0", "rc")],
    ids=lambda one: one[0],
)
def test_every_command_names_metadata_that_was_broken_by_hand(
    studio: Studio, command: tuple[str, ...]
) -> None:
    path = studio.folder / HOME / "v0/metadata.json"
    path.write_text('{"version": "v0", ')

    told = refused(studio.run(*command), 6)

    assert "v0/metadata.json: broken" in told
    assert "mend the JSON, or restore the file" in told
    assert path.read_text() == '{"version": "v0", '
    assert ok(studio.run("rerun", NAME, "4002", "--from", "v0", "--dry-run"))  # needs none of it
