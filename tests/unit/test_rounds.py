from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchq import api
from batchq.cli.following import Following
from batchq.cli.rounds import submit_rounds
from batchq.errors import UsageError
from batchq.manifest.loader import Overrides, check_manifest, load_manifest
from batchq.manifest.models import Manifest
from batchq.manifest.rounds import bounds_left, rounds_left
from batchq.outcome import Usage
from batchq.planning.planner import make_plan
from batchq.progress import RunState

TEXT = """\
rounds: {rounds}
budget: {{tokens: 100}}
steps:
  - name: a
    input: {{generate: 3}}
    sample: {{n: 2, seed: "${{params.round}}"}}
    task: m:f
"""
FOLLOWING = Following(None, detach=False, wait=False, timeout=None, local=False, as_json=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "m.yaml").write_text(TEXT.format(rounds=4))
    return tmp_path / "m.yaml"


class Runs:
    """Stands for the runs of a submit, each with the exit code and the tokens it is told."""

    def __init__(self, *codes: int, tokens: int = 10) -> None:
        self.codes, self.tokens = list(codes), tokens
        self.seen: list[tuple[Any, ...]] = []

    def __call__(self, manifest: Manifest, following: Following) -> Any:
        assert manifest.budget is not None
        step = manifest.steps[0]
        assert step.sample is not None
        number = manifest.origin.params["round"]
        assert step.sample.seed == make_plan(manifest).params["round"] == number
        self.seen.append((number, manifest.budget.tokens))
        usage = Usage(input_tokens=self.tokens)
        progress = SimpleNamespace(summary=SimpleNamespace(usage=usage))
        return SimpleNamespace(ended=SimpleNamespace(code=self.codes.pop(0), progress=progress))


def submit(file: Path, runs: Runs, *, given: int = 1, following: Following = FOLLOWING) -> int:
    params = (("round", str(given)),)
    return submit_rounds(
        file, load_manifest(file, dict(params)), following, {"params": params}, runs
    )


def test_each_round_has_its_number_and_what_is_left_of_the_budget(file: Path) -> None:
    runs = Runs(0, 3, 0, 0)

    assert submit(file, runs) == 3, "items failed in one of them"
    assert runs.seen == [(1, 100), (2, 90), (3, 80), (4, 70)]


@pytest.mark.parametrize("code", [4, 5, 124, 130])
def test_a_round_that_stops_ends_them_and_says_how_to_go_on(
    file: Path, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs(0, code)

    assert submit(file, runs) == code
    assert f"round 2 of 4; `batchq submit {file} -p round=3` runs those" in capsys.readouterr().err


def test_rounds_go_on_where_a_param_says(file: Path) -> None:
    runs = Runs(0, 0)

    assert submit(file, runs, given=3) == 0
    assert [number for number, _ in runs.seen] == [3, 4]


def test_a_budget_that_is_used_up_ends_them(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs(0, 0, tokens=50)

    assert submit(file, runs) == 5
    assert len(runs.seen) == 2
    assert "the budget is used up; with another one, " in capsys.readouterr().err


def test_rounds_cannot_be_left_alone(file: Path) -> None:
    with pytest.raises(UsageError, match="leave out --detach"):
        submit(file, Runs(), following=replace(FOLLOWING, detach=True))


def test_a_manifest_without_rounds_has_one_and_no_param_of_them(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("rounds: false\nsteps: [{name: a, input: {generate: 1}, task: 'm:f'}]\n")

    manifest = load_manifest(path)

    assert [*rounds_left(manifest)] == [1]
    assert "round" not in manifest.origin.params
    assert bounds_left(manifest, Usage(input_tokens=9)) == (None, None)


def test_a_budget_in_dollars_is_shared_by_the_rounds_too(file: Path) -> None:
    manifest = load_manifest(file, overrides=Overrides(max_cost_nusd=5, max_tokens=9))

    assert bounds_left(manifest, Usage(cost_nusd=3, input_tokens=4)) == (2, 5)
    assert bounds_left(manifest, Usage(cost_nusd=5)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rounds: 0\n", "rounds: must be at least 1, found 0"),
        ("rounds: some\n", "rounds: expected a whole number"),
        ("rounds: 2\nparams: {round: 3}\n", "params.round: a manifest with `rounds` has a param"),
        ("rounds: 2\nconfig: {skip_existing: true}\n", "`rounds` and `skip_existing` (in config)"),
    ],
)
def test_rounds_that_make_no_sense_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"{text}steps: [{{name: a, input: {{generate: 1}}, task: 'm:f'}}]\n")

    problems = [str(one) for one in check_manifest(path)]

    assert len(problems) == 1, problems
    assert message in problems[0]


def test_rounds_from_python_give_the_last_run_or_the_one_that_did_not_complete(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []

    def submitted(manifest: Manifest, *_: Any, **__: Any) -> Any:
        assert manifest.budget is not None
        seen.append((manifest.origin.params["round"], manifest.budget.tokens))
        state = RunState.FAILED if len(seen) == 3 else RunState.COMPLETED
        usage = Usage(input_tokens=20)
        return SimpleNamespace(state=state, summary=SimpleNamespace(usage=usage), number=len(seen))

    monkeypatch.setattr(api, "_submitted", submitted)

    assert api.submit(file).number == 3
    assert seen == [(1, 100), (2, 80), (3, 60)]
    with pytest.raises(UsageError, match="`rounds` need wait=True"):
        api.submit(file, wait=False)
