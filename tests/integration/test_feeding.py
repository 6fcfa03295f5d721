"""A slot whose item has ended takes the next ones by itself, if nothing is odd about them."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from batchq.manifest.loader import load_manifest
from batchq.outcome import Summary
from batchq.plan import Item, StepPlan
from batchq.planning.planner import make_plan
from batchq.ports import ItemRef
from batchq.progress import RunState
from batchq.queue import feeding
from batchq.queue.app import BatchqApp, make_app
from batchq.queue.backend import Part
from batchq.queue.dispatch import dispatch_batch
from batchq.queue.feeding import Delivery, feed
from batchq.queue.light import LIGHT, MAY_FEED
from batchq.queue.request import Request
from batchq.settings import Settings

RUN, QUEUE = "r1", "batchq.cpu"
ITEMS = [Item(f"i{index}", index, {"n": index}) for index in range(6)]
MANIFEST = """
name: feeding
config: {{output_dir: out}}
steps:
  - name: a
    input: {{generate: 6}}
    task: feeding_tasks:{task}
    timeout: {timeout}
    retry: {{max_retries: 1, base: 10ms}}
"""
CALLS = """
name: calls
config: {output_dir: out}
providers: {p: {kind: openai, model: m, base_url: "http://127.0.0.1:9/v1", api_key_env: KEY}}
steps: [{name: a, input: {generate: 6}, prompt: "Say\\nyes."}]
"""
LONG_S = 0.2
"""An item that took so long is followed by one at a time."""
TASKS = """
import threading
called, go = [], threading.Event()

def note(item):
    called.append(item["n"])
    return item["n"]

def fails(item):
    called.append(item["n"])
    raise ValueError("no")

def waits(item):
    called.append(item["n"])
    if item["n"] == 1:
        go.wait(20)
    return item["n"]
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch) -> Iterator[Any]:
    monkeypatch.setattr(feeding, "FEED_S", 60.0)  # the first item imports, on a slow machine
    (tmp_path / "feeding_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import feeding_tasks

    yield feeding_tasks
    feeding_tasks.go.set()
    del sys.modules["feeding_tasks"]


@pytest.fixture
def app(redis_url: str, tmp_path: Path) -> Iterator[BatchqApp]:
    settings = Settings(broker_url=redis_url, home=tmp_path / ".batchq", tasks=["feeding_tasks"])
    made = make_app(settings)
    made.loader.import_default_modules()
    yield made
    made.close()


def step_of(folder: Path, task: str = "note", timeout: str = "120s") -> StepPlan:
    path = folder / "m.yaml"
    path.write_text(MANIFEST.format(task=task, timeout=timeout))
    return make_plan(load_manifest(path)).steps[0]


def send(app: BatchqApp, step: StepPlan) -> None:
    """Registers a run and sends its one batch."""
    ledger = app.services.ledger
    about = {"created_at": "1", "pipeline": "p", "version": "v0", "folder": "f", "steps": "a"}
    ledger.register(RUN, about, [step.spec])
    ledger.start_step(RUN, 1, total=6, batches=1, max_failures=None, done=Summary())
    dispatch_batch(RUN, step, 0, ITEMS, ledger.open_batch(RUN, 1, 0, dispatches=1), app)


def take_first(app: BatchqApp) -> Delivery:
    """Does for the first message what the worker would, and runs nothing."""
    message = json.loads(app.services.redis.rpop(QUEUE))
    return Delivery(QUEUE, part_of(message), message["headers"]["timelimit"])


def part_of(message: dict[str, Any]) -> Part:
    headers = message["headers"]
    return Part(headers["id"], headers["group"], headers["group_index"], None, "run")


def kept(app: BatchqApp) -> list[int]:
    return [one.index for one in app.services.ledger.outcomes(RUN, 1, 0)]


def queued(app: BatchqApp) -> list[tuple[str, bool]]:
    found = [json.loads(text)["headers"] for text in app.services.redis.lrange(QUEUE, 0, -1)]
    return [(one["argsrepr"], one[LIGHT]) for one in reversed(found)]


def test_a_slot_runs_what_is_queued_and_the_chord_ends_once(app, tasks, tmp_path):
    send(app, step_of(tmp_path))
    own = take_first(app)

    feed(app, own, 0.0)

    assert tasks.called == [1, 2, 3, 4, 5] == kept(app)
    assert app.services.redis.llen("batchq.control") == 1
    assert not list(app.services.redis.scan_iter("batchq:hand:*"))
    assert not app.services.ledger.leases(RUN, 1, 0)


def test_the_chord_waits_for_items_that_others_run(app, tasks, tmp_path):
    send(app, step_of(tmp_path))
    own, _ = take_first(app), take_first(app)

    feed(app, own, 0.0)

    assert tasks.called == [2, 3, 4, 5]
    assert app.services.redis.llen("batchq.control") == 0


def test_an_item_that_was_started_before_is_left_to_the_worker(app, tasks, tmp_path):
    send(app, step_of(tmp_path))
    own = take_first(app)
    app.services.ledger.claim(ItemRef(RUN, 1, 0, 3), "somebody")

    feed(app, own, 0.0)

    assert tasks.called == [1, 2, 4, 5]
    assert queued(app) == [("('i3',)", False)]


def test_an_item_that_is_queued_twice_runs_once(app, tasks, tmp_path):
    send(app, step_of(tmp_path))
    own, redis = take_first(app), app.services.redis
    redis.lpush(QUEUE, redis.lindex(QUEUE, 0))

    feed(app, own, 0.0)

    assert tasks.called == [1, 2, 3, 4, 5]
    assert queued(app) == [("('i5',)", False)]


def test_a_message_that_cannot_be_read_is_left_to_the_worker(app, tasks, tmp_path):
    send(app, step_of(tmp_path))
    own, redis = take_first(app), app.services.redis
    broken = json.loads(redis.lindex(QUEUE, 0)) | {"body": "bm9uc2Vuc2U="}
    limits = json.dumps(own.timelimit)
    redis.lpush(QUEUE, json.dumps(broken), f'"light": true "eta": null "timelimit": {limits}')

    feed(app, own, 0.0)

    assert tasks.called == [1, 2, 3, 4, 5]
    assert redis.llen(QUEUE) == 2
    assert '"light": true' not in "".join(redis.lrange(QUEUE, 0, -1))


def test_messages_with_another_time_limit_are_left_to_the_worker(app, tasks, tmp_path):
    send(app, step_of(tmp_path, timeout="60s"))
    own = take_first(app)

    feed(app, Delivery(own.queue, own.part, [845.0, None]), 0.0)

    assert tasks.called == []
    assert len(queued(app)) == 5


def test_a_failure_too_many_leaves_the_rest_unrun(app, tasks, tmp_path):
    send(app, step_of(tmp_path, "fails"))
    app.services.ledger.set_counters(RUN, 1, {"max_failures": 0})
    own = take_first(app)

    feed(app, own, 0.9)

    assert len(tasks.called) <= 2
    assert app.services.ledger.state(RUN) is RunState.FAILED


def test_items_do_not_wait_for_one_that_was_taken_with_them(app, tasks, tmp_path, wait_for):
    send(app, step_of(tmp_path, "waits"))
    own = take_first(app)
    slot = threading.Thread(target=feed, args=(app, own, 0.0))

    slot.start()
    wait_for(lambda: len(queued(app)) == 4, "the others are back in the queue")
    leases = app.services.ledger.leases(RUN, 1, 0)
    tasks.go.set()
    slot.join(20)

    assert set(leases) == {1}
    assert kept(app) == [1, 2, 3, 4, 5]


def test_a_slot_gives_the_worker_its_say_again(app, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(feeding, "CHUNK_S", 0.0)
    monkeypatch.setattr(feeding, "FEED_S", 0.0)
    send(app, step_of(tmp_path))
    own = take_first(app)

    feed(app, own, 0.0)

    assert len(queued(app)) == 5


@pytest.mark.parametrize(
    ("groups", "revoked", "may"),
    [({"worker"}, (), True), ({"worker", "task"}, (), False), ({"worker"}, ("x",), False)],
)
def test_slots_leave_all_to_the_worker_while_tasks_are_watched_or_revoked(
    app, groups, revoked, may, monkeypatch
):
    monkeypatch.setattr(state, "revoked", set(revoked))
    headers = {"id": "1", "task": "batchq.run_item"}
    message = SimpleNamespace(
        headers=headers,
        body=b"[[], {}, {}]",
        content_type="application/json",
        content_encoding="utf-8",
        payload=[[], {}, {}],
        delivery_info={},
        properties={},
    )
    eventer = SimpleNamespace(enabled=True, groups=groups)

    request = Request(message, eventer=eventer, app=app, task=app.tasks["batchq.run_item"])

    assert request.request_dict[MAY_FEED] is may


def test_items_that_take_longer_are_taken_one_by_one(app, tasks, tmp_path, wait_for):
    send(app, step_of(tmp_path, "waits"))
    own = take_first(app)
    slot = threading.Thread(target=feed, args=(app, own, LONG_S))

    slot.start()
    wait_for(lambda: tasks.called, "one has begun")
    waiting, leases = len(queued(app)), set(app.services.ledger.leases(RUN, 1, 0))
    tasks.go.set()
    slot.join(20)

    assert (waiting, leases) == (4, {1})
    assert kept(app) == [1, 2, 3, 4, 5]
    assert app.services.redis.llen("batchq.control") == 1
    assert not list(app.services.redis.scan_iter("batchq:hand:*"))


def test_slots_that_take_items_together_run_each_once(app, tasks, tmp_path):
    send(app, step_of(tmp_path))
    own = take_first(app)
    slots = [threading.Thread(target=feed, args=(app, own, LONG_S)) for _ in range(4)]

    for slot in slots:
        slot.start()
    for slot in slots:
        slot.join(20)

    assert sorted(tasks.called) == [1, 2, 3, 4, 5] == kept(app)
    assert app.services.redis.llen("batchq.control") == 1
    assert not list(app.services.redis.scan_iter("batchq:hand:*"))


def test_a_slot_passes_over_what_a_pause_has_stopped(app, tasks, tmp_path):
    send(app, step_of(tmp_path))
    own = take_first(app)
    app.services.ledger.halt(RUN, RunState.PAUSED, "by hand")

    feed(app, own, LONG_S)

    assert tasks.called == []
    assert app.services.redis.llen(QUEUE) == 0


def test_a_call_that_has_to_wait_goes_back_for_later_and_the_slot_to_its_worker(
    app, tmp_path, monkeypatch
):
    monkeypatch.setenv("KEY", "none")
    path = tmp_path / "m.yaml"
    path.write_text(CALLS)
    step = make_plan(load_manifest(path)).steps[0]
    send(app, step)
    redis, queue = app.services.redis, f"batchq.{step.queue}"
    message = json.loads(redis.rpop(queue))
    own = Delivery(queue, part_of(message), message["headers"]["timelimit"])
    (stage,) = step.spec.stages
    assert stage.provider is not None
    app.services.tools.limiter.pause(stage.provider, 60)

    feed(app, own, LONG_S)

    texts = redis.lrange(queue, 0, -1)
    etas = [json.loads(text)["headers"]["eta"] for text in texts]
    left = (datetime.fromisoformat(etas[0]) - datetime.now(UTC)).total_seconds()
    assert 30 < left < 90
    assert etas[1:] == [None] * 4
    assert app.services.ledger.leases(RUN, 1, 0)[1].owner == "later"
    assert not app.services.ledger.outcomes(RUN, 1, 0)


def test_a_time_limit_leaves_no_time_for_more_items_that_take_long(
    app, tasks, tmp_path, monkeypatch
):
    monkeypatch.setattr(feeding, "FEED_S", 1.0)
    send(app, step_of(tmp_path, timeout="5s"))
    own = take_first(app)
    assert own.timelimit
    assert own.timelimit[0]

    feed(app, own, 4.0)

    assert tasks.called == []
    assert len(queued(app)) == 5


def test_the_way_to_redis_does_not_make_items_long(app, tasks, tmp_path, monkeypatch):
    send(app, step_of(tmp_path))
    own, rounds = take_first(app), []
    run_many = feeding._Slot.run_many

    def counted(slot, most, marks):
        rounds.append(most)
        return run_many(slot, most, marks)

    monkeypatch.setattr(feeding._Slot, "run_many", counted)
    feed(app, own, LONG_S)

    assert tasks.called == [1, 2, 3, 4, 5] == kept(app)
    assert rounds
    assert rounds[0] > 1
