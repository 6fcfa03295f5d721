"""What a coordinator does with a run, here in this process; items are run by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchq.manifest.loader import load_manifest
from batchq.outcome import Outcome, State
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import make_plan
from batchq.ports import Claim, ItemRef, RunInfo
from batchq.progress import RunState
from batchq.queue import control
from batchq.queue.advance import advance
from batchq.queue.app import BatchqApp, make_app
from batchq.queue.coordinator import CoordinatorStep
from batchq.runs.life import create_run, open_folder
from batchq.settings import Settings

MANIFEST = """
name: staged
steps:
  - name: ask
    input: {generate: 2}
    stages:
      - {name: first, task: "staged_tasks:first"}
      - {name: second, task: "staged_tasks:second"}
"""


@pytest.fixture
def app(redis_url: str, tmp_path: Path) -> Iterator[BatchqApp]:
    made = make_app(Settings(broker_url=redis_url, home=tmp_path / ".batchq", lease_ttl_s=2))
    made.loader.import_default_modules()
    yield made
    made.close()


@pytest.fixture
def info(app: BatchqApp, tmp_path: Path) -> RunInfo:
    path = tmp_path / "m.yaml"
    path.write_text(MANIFEST)
    loaded = load_manifest(path)
    plan = make_plan(loaded)
    made = create_run(plan, manifest_lock(loaded, plan), app.services, now=1.0)
    control.start(made, app.services)
    advance(made.run, app)
    return made


def ref(info: RunInfo, index: int) -> ItemRef:
    return ItemRef(info.run, 1, 0, index)


def log_of(info: RunInfo) -> str:
    return open_folder(info.folder).files.read("state/log.jsonl").decode()


def test_what_stages_gave_before_a_pause_outlives_redis(
    app: BatchqApp, info: RunInfo, redis_client: Any
) -> None:
    ledger = app.services.ledger
    ledger.commit(ref(info, 0), Outcome("0", 0, State.OK, {"n": 1}))
    ledger.claim(ref(info, 1), "a process that dies")
    ledger.checkpoint(ref(info, 1), "first", {"paid": "ä"})
    control.stop(info.run, RunState.PAUSED, "a person", app.services)
    advance(info.run, app, collate=(1, 0))

    redis_client.flushall()
    control.resume(info, app.services, is_private=False)
    advance(info.run, app)

    assert ledger.claim(ref(info, 0), "another").claim is Claim.DONE
    claim = ledger.claim(ref(info, 1), "another")
    assert claim.claim is Claim.RUN
    assert claim.checkpoints["first"] == {"paid": "ä"}
    ledger.commit(ref(info, 1), Outcome("1", 1, State.OK, {"n": 2}))
    advance(info.run, app, collate=(1, 0))
    assert ledger.state(info.run) is RunState.COMPLETED
    assert open_folder(info.folder).files.names("state/01_stages") == []


def test_a_run_that_is_over_is_ended_once_however_often_it_is_looked_at(
    app: BatchqApp, info: RunInfo
) -> None:
    ledger = app.services.ledger
    for index in range(2):
        ledger.commit(ref(info, index), Outcome(str(index), index, State.OK, {"n": 1}))
    advance(info.run, app, collate=(1, 0))

    ledger.look_at(info.run)
    for run in ledger.take_due(1e12, again_s=5):
        advance(run, app)

    assert log_of(info).count("run completed") == 1
    assert ledger.is_resting(info.run)


def test_each_decision_about_a_batch_is_counted_and_logged(
    app: BatchqApp, info: RunInfo, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="batchq")
    app.services.ledger.commit(ref(info, 0), Outcome("0", 0, State.OK, {"n": 1}))

    for _ in range(3):
        advance(info.run, app, collate=(1, 0))

    counted = app.services.tally.totals()
    assert {key[1]: n for key, n in counted.items() if key[0] == "decisions"} == {
        "send again": 2,
        "give up": 1,
    }
    assert "batch 0 of step ask: send again, 1 items: the batch came back without" in caplog.text
    assert (
        "batch 0 of step ask: give up, 1 items: the batch came back without them 3" in caplog.text
    )
    assert '"reason": "the batch came back without them"' in log_of(info)


def test_a_coordinator_that_cannot_look_ends_itself(
    app: BatchqApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr("os.kill", lambda *one: signals.append(one))
    monkeypatch.setitem(sys.modules, "batchq.queue.advance", None)  # an import of it fails

    with pytest.raises(ImportError):
        CoordinatorStep(None).go_on(app)

    assert len(signals) == 1
