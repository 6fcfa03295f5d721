"""Messages that are not ours, or of another version, run nothing and hold nothing up."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batchq.plan import Item
from batchq.ports import ItemRef
from batchq.queue.app import BatchqApp, make_app
from batchq.queue.message import encode_message
from batchq.settings import Settings

GOOD = encode_message(ItemRef("r1", 1, 0, 0), Item("0", 0, {"n": 1}))
DAMAGED: dict[str, tuple[Any, str]] = {
    "of an older version": ({**GOOD, "v": 0}, "version '0'"),
    "of a newer version": ({**GOOD, "v": 2, "extra": 1}, "version '2'"),
    "without a version": ({"run": "r1"}, "version 'None'"),
    "a text": ("run everything", "no mapping but str"),
    "a list": ([1, 2], "no mapping but list"),
    "with a hostile run": ({**GOOD, "run": {"$ne": 1}}, "run is dict"),
    "with a text for an index": ({**GOOD, "index": "0; DROP"}, "index is str"),
    "with a bool for a step": ({**GOOD, "step": True}, "step is bool"),
    "without an id": ({key: GOOD[key] for key in GOOD if key != "id"}, "id is NoneType"),
    "without data": ({key: GOOD[key] for key in GOOD if key != "data"}, "without data"),
}


@pytest.fixture
def app(redis_url: str) -> Iterator[BatchqApp]:
    made = make_app(Settings(broker_url=redis_url))
    made.loader.import_default_modules()
    yield made
    made.close()


@pytest.mark.parametrize("name", DAMAGED)
def test_a_message_that_cannot_be_read_is_refused_by_name(
    app: BatchqApp, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    message, reason = DAMAGED[name]

    done = app.tasks["batchq.run_item"].apply(args=(message,))

    assert done.result == "refused"
    assert reason in caplog.text


def test_the_items_of_messages_of_another_version_are_sent_again(
    cluster: Any, redis_client: Any
) -> None:
    cluster.coordinator()
    info = cluster.submit("""
        name: upgraded
        steps:
          - {name: note, input: {generate: 6}, task: "cluster_tasks:note"}
        """)
    cluster.wait_for(lambda: redis_client.llen("batchq.cpu") == 6, "its messages are queued", 20)
    for _ in range(3):  # half of them as an older release would have written them
        redis_client.lpush("batchq.cpu", aged(redis_client.rpop("batchq.cpu")))

    cluster.worker("-P", "threads", "-c", "2")

    assert len(list(cluster.finish(info).read_collated(1))) == 6
    assert sorted((cluster.folder / "calls.txt").read_text().split()) == list("123456")
    assert "refused: a message of version '0'" in cluster.logs()


def aged(text: bytes) -> str:
    message = json.loads(text)
    args, kwargs, embed = json.loads(base64.b64decode(message["body"]))
    args[0]["v"] = 0
    message["body"] = base64.b64encode(json.dumps([args, kwargs, embed]).encode()).decode()
    return json.dumps(message)


def test_messages_from_outside_run_nothing_and_the_worker_goes_on(
    cluster: Any, redis_client: Any, wait_for: Callable[..., None]
) -> None:
    cluster.coordinator()
    cluster.worker("-P", "threads", "-c", "2")
    mark = cluster.folder / "owned"
    app = make_app(cluster.services.settings)
    app.send_task("batchq.run_item", args=(GOOD,), queue="batchq.cpu")
    wait_for(lambda: redis_client.llen("batchq.cpu") == 0, "the worker is up", 30)
    template = sent(app, redis_client)

    class Hostile:
        def __reduce__(self) -> Any:
            return (mark.write_text, ("a message ran code",))

    def push(body: bytes, **changes: Any) -> None:
        message = {**template, "body": base64.b64encode(body).decode()}
        message["content-type"] = changes.pop("content_type", "application/json")
        message["headers"] = {**template["headers"], **changes}
        redis_client.lpush("batchq.cpu", json.dumps(message))

    push(pickle.dumps(([], {}, Hostile())), content_type="application/x-python-serialize")
    push(json.dumps([[f"touch {mark}"], {}, {}]).encode(), task="os.system")
    push(json.dumps([[{**GOOD, "data": "x" * 9_000_000}], {}, {}]).encode())
    push(b"[" * 100_000)
    push(b"\xff\xfe not json")
    redis_client.lpush("batchq.cpu", json.dumps({"body": "?"}))

    info = cluster.submit("""
        name: sound
        steps:
          - {name: note, input: {generate: 4}, task: "cluster_tasks:note"}
        """)
    assert len(list(cluster.finish(info).read_collated(1))) == 4
    assert not mark.exists()
    assert not redis_client.llen("batchq.cpu")


def sent(app: BatchqApp, redis_client: Any) -> Any:
    """A message as it is on the wire, out of a queue that nobody reads."""
    app.send_task("batchq.run_item", args=(GOOD,), queue="batchq.nobody")
    message = json.loads(redis_client.rpop("batchq.nobody"))
    app.close()
    return message
