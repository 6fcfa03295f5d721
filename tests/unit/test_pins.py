from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from batchq.errors import ManifestError
from batchq.manifest.loader import load_manifest
from batchq.plan import Plan, encode
from batchq.planning.drift import find_drift
from batchq.planning.lock import manifest_lock
from batchq.progress import RunState
from batchq.records import RunRecord
from batchq.runs.pins import make_plan, pin_inputs
from batchq.store import Outputs

STEPS = """
name: words
steps:
  - {name: upper, input: {generate: 3}, task: "m:f"}
  - {name: lower, task: "m:f", output_file: lower.jsonl}
  - {name: table, task: "m:f", output_file: table.yaml}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "words.yaml").write_text(STEPS)
    return tmp_path


@pytest.fixture
def finished(folder: Path) -> Callable[..., str]:
    """`finished(status="draft", done=3)` makes a version of `words`; it is latest if complete."""
    plan = make_plan(load_manifest(folder / "words.yaml"))
    outputs = Outputs("outputs", str(folder))

    def make(status: str = "draft", done: int = 3) -> str:
        version = outputs.create_version("words")
        version.write_plan(plan)
        state = RunState.COMPLETED if done == 3 else RunState.FAILED
        record = RunRecord(
            version.version, "words", version.version, state, status, "", "initial", "",
            version.url, "2026-01-01T00:00:00.000Z",
        )  # fmt: skip
        version.write_metadata(record, plan, {})
        for step in plan.steps[:done]:
            version.write_collated(step.spec.number, step.output, [{"of": version.version}])
            version.mark_done(step.spec.number)
        if done == 3:
            outputs.point_latest("words", version.version)
        return version.version

    return make


@pytest.fixture
def read(folder: Path) -> Callable[[str], str]:
    """`read(input)` is the input of a step after it is pinned."""

    def pinned(source: str) -> str:
        text = f"steps: [{{name: next, task: 'm:f', input: '{source}'}}]\n"
        (folder / "next.yaml").write_text(text)
        return str(pin_inputs(load_manifest(folder / "next.yaml")).steps[0].input)

    return pinned


def planned(folder: Path, source: str) -> Plan:
    (folder / "next.yaml").write_text(f"steps: [{{name: next, task: 'm:f', input: '{source}'}}]\n")
    return make_plan(load_manifest(folder / "next.yaml"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("run:words@latest/upper", "v2/collated/01_upper.json"),
        ("run:words@latest/2", "v2/collated/02_lower.jsonl"),
        ("run:words@v0/lower", "v0/collated/02_lower.jsonl"),
        ("run:words@v3/upper", "v3/collated/01_upper.json"),
        ("run:words@final/upper", "v1/collated/01_upper.json"),
        ("outputs/words/latest/collated/01_upper.json", "v2/collated/01_upper.json"),
        ("outputs/words/latest/collated/*.json", "v2/collated/*.json"),
        ("outputs/words/v0/collated/01_upper.json", "v0/collated/01_upper.json"),
    ],
)
def test_an_input_is_pinned_to_the_file_of_one_version(
    finished: Callable[..., str], read: Callable[[str], str], source: str, expected: str
) -> None:
    versions = [finished(), finished("final"), finished(), finished("final", done=1)]

    found = read(source)

    assert versions == ["v0", "v1", "v2", "v3"]
    assert found == f"outputs/words/{expected}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("run:wrds@latest", "no pipeline wrds: did you mean words?"),
        ("run:words@v7", "words has no v7; there are v0, v1"),
        ("run:words@fnal", "no complete version that is fnal; there are v0 draft, v1 beta"),
        ("run:words@v1/uper", "words@v1 has no step uper; did you mean `upper`?"),
        ("run:words@v1/lower", "step lower of words@v1 is not done"),
        ("run:words@v0", "words@v0 wrote collated/03_table.yaml, which no step can read"),
        ("run:words", "expected run:NAME@VERSION (such as run:words@latest/STEP)"),
    ],
)
def test_an_input_that_names_nothing_is_told_where_it_stands(
    folder: Path,
    finished: Callable[..., str],
    read: Callable[[str], str],
    source: str,
    expected: str,
) -> None:
    finished()
    finished("beta", done=1)

    with pytest.raises(ManifestError) as caught:
        read(source)

    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"{folder / 'next.yaml'}:1:")


def test_a_version_of_which_a_part_was_deleted_is_named(
    folder: Path, finished: Callable[..., str], read: Callable[[str], str]
) -> None:
    home = folder / "outputs/words"
    finished()
    finished()
    (home / "v0/collated/01_upper.json").unlink()
    (home / "v1/plan.json").unlink()

    for source, expected in {
        "run:words@v0/upper": "the output of step upper of words@v0 is gone",
        "run:words@v1/upper": "words@v1 has no plan.json: a part of the version was deleted",
        "run:words@latest": r"words@latest points at v1, which is not there.*\(v0\)",
    }.items():
        with pytest.raises(ManifestError, match=expected):
            read(source)


def test_only_a_complete_version_is_latest(
    finished: Callable[..., str], read: Callable[[str], str]
) -> None:
    finished(done=1)

    with pytest.raises(ManifestError, match=r"words has no latest: none .* is complete \(v0\)"):
        read("run:words@latest/upper")


def test_plan_and_lock_say_what_was_read_and_a_newer_version_is_no_drift(
    folder: Path, finished: Callable[..., str]
) -> None:
    finished()
    plan = planned(folder, "run:words@latest/upper")
    lock = manifest_lock(pin_inputs(load_manifest(folder / "next.yaml")), plan)

    finished()

    path = "outputs/words/v0/collated/01_upper.json"
    told = YAML(typ="safe").load(lock)
    pinned = told["pinned"][0]
    assert (pinned["step"], pinned["written"], pinned["input"]) == (
        "next",
        "run:words@latest/upper",
        path,
    )
    assert pinned["sha256"] == plan.hashes[f"input:{path}"]
    assert told["manifest"]["steps"][0]["input"] == path
    assert json.loads(encode(plan))["steps"][0]["input"]["written"] == "run:words@latest/upper"
    assert find_drift(plan) == []

    (folder / path).write_text("[1]")

    assert [one.name for one in find_drift(plan)] == [path]
