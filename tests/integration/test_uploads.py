"""A coordinator's side of uploads: a real Redis, a real provider that is simulated, no workers."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from batchq.manifest.loader import load_manifest
from batchq.planning.planner import make_plan
from batchq.ports import RunInfo
from batchq.progress import RunState
from batchq.queue import control
from batchq.queue.advance import advance
from batchq.queue.app import BatchqApp, make_app
from batchq.runs.life import create_run, open_folder
from batchq.runs.uploads import Uploads
from batchq.settings import Settings
from batchq.simulator.options import SimulatorOptions
from batchq.simulator.server import serve
from batchq.store.uploads import KeptUpload, UploadStore

MANIFEST = """
name: up
{top}
providers:
  sim:
    kind: simulator
    base_url: "{url}"
    limits: {{{limits}}}
    prices: {{input_per_1m: 100, output_per_1m: 100}}
steps:
  - name: ask
    input: {{generate: {items}}}
    prompt: "Say {{number}}\\n."
    options: {{max_tokens: 50}}
    batch_size: 2
    concurrent_batches: 1
    mode: {mode}
"""


@dataclass
class World:
    """One run, whose coordinator does what it is told."""

    app: BatchqApp
    info: RunInfo
    late_s: float = 0.0

    def __post_init__(self) -> None:
        self.uploads = Uploads(self.app.services, lambda: time.time() + self.late_s)

    @property
    def store(self) -> UploadStore:
        return UploadStore(open_folder(self.info.folder), 1)

    @property
    def state(self) -> RunState | None:
        return self.app.services.ledger.state(self.info.run)

    @property
    def reason(self) -> str:
        return self.app.services.ledger.about(self.info.run)["reason"]

    def messages(self) -> int:
        return self.app.services.ledger.queue_length("batchq.llm")

    def look(self, times: int = 1) -> list[KeptUpload]:
        """Lets the coordinator look at the run and at its uploads, however soon that is."""
        for _ in range(times):
            advance(self.info.run, self.app)
            self.uploads.look_at_due(time.time() + 3600)
        return self.store.all()


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """The address of a simulator in a thread, which `/control` makes another one for each test."""
    reading, writing = os.pipe()
    urls: queue.Queue[str] = queue.Queue()
    place = (SimulatorOptions(), "127.0.0.1", 0, urls.put)
    thread = threading.Thread(target=serve, args=place, kwargs={"parent_pipe": reading})
    thread.start()
    yield urls.get(timeout=20)
    os.close(writing)
    thread.join()
    os.close(reading)


@pytest.fixture
def begin(tmp_path: Path, redis_url: str, provider: str) -> Callable[..., World]:
    def begin(
        mode: str, *, items: int = 5, limits: str = "", top: str = "", **behaviour: Any
    ) -> World:
        options = SimulatorOptions(latency_ms=0, **behaviour).model_dump(mode="json")
        requests.post(f"{provider}/reset", timeout=5).raise_for_status()
        requests.post(f"{provider}/control", json=options, timeout=5).raise_for_status()
        path = tmp_path / "manifest.yaml"
        values = {"mode": mode, "items": items, "limits": limits, "top": top}
        path.write_text(MANIFEST.format(url=f"{provider}/v1", **values))
        app = make_app(Settings(broker_url=redis_url, home=tmp_path / ".batchq"))
        info = create_run(make_plan(load_manifest(path)), "{}", app.services, now=time.time())
        control.start(info, app.services)
        return World(app, info)

    return begin


def test_uploads_are_as_large_as_may_be_and_go_beyond_the_window(
    begin: Callable[..., World],
) -> None:
    world = begin("batch", limits="upload_lines: 3", batch_s=30)

    uploads = world.look(times=4)

    assert [one.intent.lines for one in uploads] == [3, 2]
    assert [one.is_running for one in uploads] == [True, True]
    assert world.messages() == 0
    (told,) = world.app.services.uploads.told(world.info.run)
    assert (told.running, told.lines) == (2, 5)


def test_what_has_come_goes_out_as_items_batch_by_batch(begin: Callable[..., World]) -> None:
    world = begin("batch")

    (upload,) = world.look(times=4)

    assert upload.ended is not None
    assert upload.ended.answered == 5
    assert world.messages() == 2  # a window of one batch of two
    brought = world.app.services.redis.hgetall(f"batchq:{{{world.info.run}}}:brought:1:0")
    assert brought.keys() == {"0", "1"}


def test_a_refused_upload_pauses_a_run_of_batch_with_the_reason(
    begin: Callable[..., World],
) -> None:
    world = begin("batch", batch_reject_rate=1.0)

    world.look(times=3)

    assert world.state is RunState.PAUSED
    assert "sim refused an upload" in world.reason
    assert "`mode: online`" in world.reason
    assert len(world.store.all()) == 1  # none is made for a run that stands still


def test_a_refused_upload_lets_a_run_of_auto_go_online(begin: Callable[..., World]) -> None:
    world = begin("auto", batch_reject_rate=1.0)

    world.look(times=4)

    online = world.store.online()
    assert world.state is RunState.RUNNING
    assert online is not None
    assert "sim refused an upload" in online.reason
    assert world.messages() == 2


def test_a_used_up_quota_is_waited_for_and_told(begin: Callable[..., World]) -> None:
    world = begin("batch", batch_queue_tokens=6)

    world.look(times=2)
    (waits,) = world.app.services.uploads.told(world.info.run)
    for _ in range(8):
        world.late_s += 700
        world.look()

    (told,) = world.app.services.uploads.told(world.info.run)
    made = [one for one in world.store.all() if one.ended and one.ended.state == "ended"]
    assert world.state is RunState.RUNNING
    assert waits.note == "sim batch quota"
    assert [one.intent.lines for one in made][:1] == [2]
    assert sum(one.intent.lines for one in made) == 5
    assert told.note == ""


def test_a_paused_run_leaves_its_uploads_and_reads_them_when_it_goes_on(
    begin: Callable[..., World], wait_for: Callable[..., None]
) -> None:
    world = begin("batch", batch_s=0.5)
    world.look()
    control.stop(world.info.run, RunState.PAUSED, "a person", world.app.services)

    (left,) = world.look(times=2)
    assert (left.is_running, left.cancelled_at) == (True, None)
    control.resume(world.info, world.app.services, is_private=False)
    wait_for(lambda: world.look()[0].ended is not None, "its answers are read")

    (upload,) = world.store.all()
    assert upload.ended is not None
    assert upload.ended.answered == 5


def test_a_cancelled_run_cancels_its_uploads_and_a_resume_pays_only_for_the_rest(
    begin: Callable[..., World], wait_for: Callable[..., None]
) -> None:
    world = begin("batch", items=40, batch_s=2.0)
    wait_for(lambda: any(one.created for one in world.look()), "it is made")
    time_of_some_answers = time.time() + 0.6
    wait_for(lambda: time.time() > time_of_some_answers, "some lines are answered")
    control.stop(world.info.run, RunState.CANCELLED, "a person", world.app.services)

    wait_for(lambda: world.look() and world.app.services.ledger.is_resting(world.info.run), "end")

    (first,) = world.store.all()
    assert first.ended is not None
    assert first.ended.answered + first.ended.cancelled == 40
    assert 0 < first.ended.answered < 40
    control.resume(world.info, world.app.services, is_private=False)
    wait_for(lambda: len(world.look()) == 2, "the rest is sent")
    assert world.store.all()[1].intent.lines == first.ended.cancelled


def test_an_upload_is_as_large_as_the_budget_allows_and_then_the_run_stands_still(
    begin: Callable[..., World],
) -> None:
    world = begin("batch", items=6, top="budget: {usd: 0.006}", batch_s=30)

    uploads = world.look(times=4)

    use = world.app.services.budgets.use(world.info.run)
    assert use is not None
    assert [one.intent.lines for one in uploads] == [2]  # (50 + 3 tokens) x $50 a million each
    assert use.held_nusd == uploads[0].intent.need.cost_nusd
    assert world.state is RunState.RUNNING  # what is held may come back


def test_first_items_go_online_before_any_upload(begin: Callable[..., World]) -> None:
    world = begin("batch", top="canary: {items: 1}")

    uploads = world.look(times=2)

    assert uploads == []
    assert world.messages() == 1


def test_a_budget_that_one_call_does_not_fit_lets_the_run_stand_still(
    begin: Callable[..., World],
) -> None:
    world = begin("batch", top="budget: {usd: 0.001}")

    uploads = world.look(times=2)

    assert uploads == []
    assert world.state is RunState.PAUSED
    assert "the budget of $0.001" in world.reason


def test_results_that_stay_cut_off_are_read_five_times_on_a_clock_of_its_own(
    begin: Callable[..., World],
) -> None:
    world = begin("batch", batch_cut="always", clock_ahead_s=100_000)
    world.look(times=2)
    (cut,) = world.store.all()

    for _ in range(6):
        world.late_s += 700
        world.look()

    (upload,) = world.store.all()
    assert cut.is_running
    assert upload.ended is not None
    assert upload.ended.answered + upload.ended.missing == 5
    assert 0 < upload.ended.missing < 5
