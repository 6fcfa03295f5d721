"""Versions as one file: written, read back, and refused where they are not what they say."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from batchq.actions.archive import pack, unpack
from batchq.errors import UsageError
from batchq.outcome import Outcome, State, Summary
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
from batchq.runs.versions import open_version
from batchq.store import Outputs

STEP = StepPlan(
    spec=StepSpec(1, "base", (StageSpec("", "task", task="m:f"),)), input=InputSpec("x"),
    output=OutputSpec("base.json"), pacing=Pacing(), queue="cpu", needs=(), tolerance=Tolerance(),
    items=1, items_are_estimated=False, batches=1, calls=0, input_tokens=0, output_tokens=0,
    cost_usd=None, duration_s=1.0, bound_by="cpu",
)  # fmt: skip
PLAN = Plan(
    name="a b", pipeline="a b", labels={}, status="beta", notes="", output_dir="outputs",
    manifest_path="m.yaml", base_dir=".", params={}, hashes={}, steps=(STEP,),
)  # fmt: skip


def version(outputs: Outputs, run: str = "run1", state: RunState = RunState.COMPLETED):
    """Makes a version of one item."""
    folder = outputs.create_version("a b")
    folder.freeze_items(1, iter([Item("ü/..", 0, {})]))
    folder.write_batch(1, 0, [Outcome("ü/..", 0, State.OK, output={"n": 1})], STEP.output)
    folder.collate(1, STEP.output)
    folder.mark_done(1)
    folder.write_plan(PLAN)
    record = RunRecord(
        run=run, pipeline="a b", version=folder.version, state=state, status="beta", notes="",
        mode="initial", base_version="", folder=folder.url, created_at="2026-01-20T14:30:00.000Z",
        items=1, summary=Summary(ok=1),
    )  # fmt: skip
    folder.write_metadata(record, PLAN, {})
    return open_version("a b", folder.version, folder.url)


def packed(outputs: Outputs, **more) -> bytes:
    file = io.BytesIO()
    pack(version(outputs, **more), file)
    return file.getvalue()


@pytest.mark.parametrize("target", ["disk", "memory://archive-test"])
def test_a_version_comes_out_as_it_went_in(tmp_path: Path, target: str) -> None:
    outputs = Outputs(str(tmp_path / "outputs"))
    there = Outputs(target if "://" in target else str(tmp_path / target))
    data = packed(outputs)

    found = unpack(io.BytesIO(data), there)
    again = unpack(io.BytesIO(data), there)

    (folder,) = found.folders
    before = outputs.open_version("a b", "v0")
    assert {*folder.files.walk()} - {"state/claim"} == {*before.files.walk()}
    for path in before.files.walk():
        if path != "plan.json":
            assert folder.files.read(path) == before.files.read(path)
    assert folder.read_plan().output_dir == there.url
    assert (again.folders, again.known) == ([], ["v0"])
    folder.discard()


def test_a_version_that_is_under_way_is_not_packed(tmp_path: Path) -> None:
    running = version(Outputs(str(tmp_path)), state=RunState.RUNNING)

    with pytest.raises(UsageError, match="a b@v0 is running: pause it first"):
        pack(running, io.BytesIO())


def test_the_number_of_another_run_is_not_taken(tmp_path: Path) -> None:
    data = packed(Outputs(str(tmp_path / "one")))
    other = Outputs(str(tmp_path / "two"))
    version(other, run="run2")

    with pytest.raises(UsageError, match=r"is another run \(run2\): choose another folder"):
        unpack(io.BytesIO(data), other)

    assert other.open_version("a b", "v0").read_metadata().run == "run2"


HEADER = {"pipeline": "a b", "runs": {"v0": "run1"}, "form": 1, "made_by": "0"}


def archive(*entries: tuple[tarfile.TarInfo, bytes], header=HEADER) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w|gz") as tar:
        for entry, data in (
            (tarfile.TarInfo("batchq.json"), json.dumps(header).encode()),
            *entries,
        ):
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def linked(name: str, to: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, to
    return entry


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (archive((tarfile.TarInfo("a b/v0/../../x"), b"1")), "does not belong into a version"),
        (archive((tarfile.TarInfo("/etc/x"), b"1")), "does not belong into a version"),
        (archive((tarfile.TarInfo("a b/v1/x"), b"1")), "does not belong into a version"),
        (archive((tarfile.TarInfo("a b/v0/./x"), b"1")), "does not belong into a version"),
        (archive((linked("a b/v0/x", "/etc/passwd"), b"")), "does not belong into a version"),
        (archive((tarfile.TarInfo("a b/v0/x"), b"1")), "it ends before its versions do"),
        (archive((tarfile.TarInfo("a b/v0/plan.json"), b"{}")), "no whole archive"),
        (archive(header=HEADER | {"form": 2}), "an archive of form 2"),
        (archive(header=HEADER | {"runs": {"../v0": "x"}}), "versions that are none"),
        (archive(header=HEADER | {"runs": 3}), "no whole archive"),
        (archive(header=[]), "an archive of form None"),
        (b"", "no whole archive"),
        (b"hello", "no whole archive"),
    ],
)
def test_what_is_no_archive_leaves_nothing(tmp_path: Path, data: bytes, told: str) -> None:
    outputs = Outputs(str(tmp_path / "outputs"))

    with pytest.raises(UsageError, match=told):
        unpack(io.BytesIO(data), outputs)

    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_archive_that_is_cut_off_anywhere_leaves_nothing(tmp_path: Path) -> None:
    data = packed(Outputs(str(tmp_path / "one")))
    there = tmp_path / "two"

    for length in (0, 9, len(data) // 2, len(data) - 200, len(data) - 9, len(data) - 1):
        with pytest.raises(UsageError):
            unpack(io.BytesIO(data[:length]), Outputs(str(there)))

        assert not [path for path in there.rglob("*") if path.is_file()]
