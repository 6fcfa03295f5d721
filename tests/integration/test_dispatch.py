"""What `dispatch_batch` puts into Redis is what a plain Celery chord puts there."""

from __future__ import annotations

import base64
import gc
import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chord, group
from celery._state import _task_stack

from batchq.queue.app import BatchqApp, make_app
from batchq.queue.dispatch import UniformGroup
from batchq.settings import Settings

QUEUE = "test.header"
CALLS = [(({"n": number},), f"({number!r},)") for number in range(12)]
OPTIONS = {
    "queue": QUEUE,
    "kwargsrepr": "{}",
    "soft_time_limit": 5.0,
    "time_limit": 35.0,
    "headers": {"sent_at": 12.5},
}


@pytest.fixture
def app(redis_url: str) -> Iterator[BatchqApp]:
    made = make_app(Settings(broker_url=redis_url))
    made.loader.import_default_modules()
    yield made
    gc.collect()  # results of a plain chord unsubscribe when they go, and want Redis then
    made.close()


def send(app: BatchqApp, header: Any) -> str:
    """Runs a chord over the header as batchq does; returns the group's id."""
    collate = app.signature("batchq.collate_batch", args=("run", 1, 0), immutable=True, queue="c")
    return str(chord(header, app=app).run(header, collate, (), app=app).parent.id)


def plain_header(app: BatchqApp) -> Any:
    return group(
        [
            app.signature("batchq.run_item", args=args, argsrepr=argsrepr, **OPTIONS)
            for args, argsrepr in CALLS
        ],
        app=app,
    )


def uniform_header(app: BatchqApp) -> Any:
    return UniformGroup(app.signature("batchq.run_item", **OPTIONS), CALLS, app)


def take_messages(redis_client: Any) -> list[dict[str, Any]]:
    """Takes what is queued, in the order in which workers would, with bodies decoded."""
    found = []
    while (raw := redis_client.rpop(QUEUE)) is not None:
        message = json.loads(raw)
        message["body"] = json.loads(base64.b64decode(message["body"]).partition(b"\n")[2])
        found.append(message)
    return found


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    """The message with each random id replaced by what it stands for."""
    embed = message["body"][2]
    names = {
        message["headers"]["id"]: "ID",
        message["headers"]["group"]: "GROUP",
        embed["chord"]["options"]["task_id"]: "CALLBACK",
        message["properties"]["delivery_tag"]: "TAG",
    }
    assert len(names) == 4
    text = json.dumps(message, sort_keys=True)
    for value, name in names.items():
        text = text.replace(value, name)
    return json.loads(text)


def test_each_message_equals_the_one_of_a_plain_chord(app, redis_client):
    send(app, plain_header(app))
    plain = take_messages(redis_client)

    send(app, uniform_header(app))
    uniform = take_messages(redis_client)

    assert [without_ids(one) for one in uniform] == [without_ids(one) for one in plain]
    assert len(uniform) == len(CALLS)


def test_each_message_equals_the_one_of_a_plain_chord_when_a_task_sends_it(app, redis_client):
    task = app.tasks["batchq.collate_batch"]
    task.push_request(id="the-parent", root_id="the-root", called_directly=False)
    _task_stack.push(task)
    try:
        send(app, plain_header(app))
        plain = take_messages(redis_client)
        send(app, uniform_header(app))
        uniform = take_messages(redis_client)
    finally:
        _task_stack.pop()
        task.pop_request()

    assert [without_ids(one) for one in uniform] == [without_ids(one) for one in plain]
    assert {one["headers"]["parent_id"] for one in uniform} == {"the-parent"}
    assert {one["headers"]["root_id"] for one in uniform} == {"the-root"}


def test_every_task_has_an_id_of_its_own_and_its_own_root(app, redis_client):
    send(app, uniform_header(app))

    messages = take_messages(redis_client)
    ids = [one["headers"]["id"] for one in messages]

    assert len(set(ids)) == len(CALLS)
    assert [one["headers"]["root_id"] for one in messages] == ids
    assert [one["properties"]["correlation_id"] for one in messages] == ids
    assert len({one["properties"]["delivery_tag"] for one in messages}) == len(CALLS)


def test_the_chord_waits_for_every_task(app, redis_client):
    group_id = send(app, uniform_header(app))

    size = redis_client.get(app.backend.get_key_for_group(group_id, ".s"))

    assert int(size) == len(CALLS)


def test_nothing_waits_for_the_results_of_the_tasks(app, redis_client, wait_for):
    send(app, uniform_header(app))

    wait_for(lambda: not redis_client.pubsub_channels(), "no channel is subscribed to")
