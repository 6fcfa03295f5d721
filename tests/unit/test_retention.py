"""Which versions a clean-up takes."""

from __future__ import annotations

from batchq.actions.retention import judge
from batchq.outcome import Summary
from batchq.progress import RunState
from batchq.records import RunRecord


def version(
    number: int, state: RunState = RunState.COMPLETED, label: str = "draft", base: str = ""
) -> RunRecord:
    return RunRecord(
        run=f"run{number}", pipeline="p", version=f"v{number}", state=state, status=label, notes="",
        mode="rerun" if base else "initial", base_version=base, folder=f"/outputs/p/v{number}",
        created_at="2026-01-20T14:30:00.000Z", items=1, summary=Summary(),
    )  # fmt: skip


def kept(*records: RunRecord, keep: int = 1, **more) -> dict[str, str]:
    return {one.record.version: one.kept_for for one in judge(records, keep=keep, **more)}


def test_the_newest_stay_whatever_order_they_come_in() -> None:
    assert kept(version(2), version(10), version(9), keep=2) == {
        "v10": "it is the latest",
        "v9": "it is one of the newest 2",
        "v2": "",
    }


def test_the_latest_stays_where_newer_ones_failed() -> None:
    failed = [version(n, RunState.FAILED) for n in (1, 2, 3)]

    assert kept(version(0), *failed, keep=2) == {
        "v3": "it is one of the newest 2",
        "v2": "it is one of the newest 2",
        "v1": "",
        "v0": "it is the latest",
    }


def test_a_version_with_a_label_that_is_kept_stays() -> None:
    found = kept(version(0, label="final"), version(1), version(2), keep_labels={"final"})

    assert found == {"v2": "it is the latest", "v1": "", "v0": "its label is final"}


def test_what_is_not_over_stays() -> None:
    states = (RunState.PENDING, RunState.RUNNING, RunState.PAUSED)

    found = kept(*(version(n, state) for n, state in enumerate(states)), version(3))

    assert found["v2"] == "it is paused"
    assert "" not in found.values()


def test_all_that_a_kept_version_was_built_on_stays() -> None:
    found = kept(version(0), version(1, base="v0"), version(2), version(3, base="v1"))

    assert found == {
        "v3": "it is the latest",
        "v2": "",
        "v1": "v3 builds on it",
        "v0": "v1 builds on it",
    }


def test_what_only_a_version_that_goes_was_built_on_goes_with_it() -> None:
    assert kept(version(0), version(1, base="v0"), version(2)) == {
        "v2": "it is the latest",
        "v1": "",
        "v0": "",
    }


def test_a_version_without_its_folder_goes_and_counts_for_nothing() -> None:
    gone, there = judge([version(0), version(1, base="v0")], keep=1, gone={"run1"})

    assert (gone.is_gone, gone.kept_for) == (True, "")
    assert there.kept_for == "it is the latest"
