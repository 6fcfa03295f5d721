"""Messages that are not ours, changed or of another version run nothing and hold nothing up."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchq.broker.signing import signer_of
from batchq.plan import Item, StepSpec
from batchq.ports import ItemRef
from batchq.progress import RunState
from batchq.queue.advance import advance
from batchq.queue.app import BatchqApp, make_app
from batchq.queue.message import encode_message
from batchq.services import build_services
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


def test_items_of_messages_of_other_versions_changed_or_signed_by_others_are_sent_again(
    cluster: Any, redis_client: Any
) -> None:
    cluster.coordinator()
    info = cluster.submit("""
        name: upgraded
        steps:
          - {name: note, input: {generate: 6}, task: "cluster_tasks:note"}
        """)
    cluster.wait_for(lambda: redis_client.llen("batchq.cpu") == 6, "its messages are queued", 20)
    url = cluster.services.settings.broker_url
    ours, other = signer_of("", url), signer_of("", "redis://:of-another-broker@host")
    for damage in (
        lambda text: ours.seal("message", text.replace('"v": 1', '"v": 0')),
        lambda text: other.seal("message", text),
        lambda text: ours.seal("message", text).replace('"number": ', '"number": 1'),
        lambda text: text,
    ):
        redis_client.lpush("batchq.cpu", damaged(redis_client.rpop("batchq.cpu"), damage))
    stranger = make_app(cluster.services.settings.model_copy(update={"signing_key": "off"}))

    cluster.worker("-P", "threads", "-c", "2")
    cluster.wait_for(lambda: len(calls(cluster)) == 2, "the sound ones are run", 30)
    stranger.control.shutdown()
    stranger.close()

    assert len(list(cluster.finish(info).read_collated(1))) == 6
    assert sorted(calls(cluster)) == list("123456")
    logs = (cluster.folder / "worker1.log").read_text()
    assert "refused: a message of version '0'" in logs
    assert "signed with another key than ours" in logs
    assert "changed after it was signed" in logs


def calls(cluster: Any) -> list[str]:
    path = cluster.folder / "calls.txt"
    return path.read_text().split() if path.exists() else []


def damaged(raw: bytes, damage: Callable[[str], str]) -> str:
    """A message of the queue with another body."""
    message = json.loads(raw)
    text = base64.b64decode(message["body"]).decode().partition("\n")[2]
    message["body"] = base64.b64encode(damage(text).encode()).decode()
    return json.dumps(message)


def test_a_run_whose_place_others_wrote_into_redis_is_paused(
    app: BatchqApp, redis_client: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    about = {"created_at": "1", "folder": str(tmp_path / "ours"), "catalog": "sqlite://"}
    app.services.ledger.register("r1", about, [])
    redis_client.hset("batchq:{r1}:run", "folder", str(tmp_path / "theirs"))

    advance("r1", app)

    assert app.services.ledger.state("r1") is RunState.PAUSED
    assert "changed after it was signed" in app.services.ledger.about("r1")["reason"]
    assert app.services.ledger.is_resting("r1")
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_others_wrote_into_redis_is_not_run(
    app: BatchqApp, redis_client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    about = {"created_at": "1", "folder": "f", "catalog": "c"}
    app.services.ledger.register("r1", about, [StepSpec(1, "ours", ())])
    mine = redis_client.get("batchq:{r1}:step:1")
    redis_client.set("batchq:{r1}:step:2", mine)  # signed, but for another step
    redis_client.set("batchq:{r1}:step:1", mine.replace(b"ours", b"mine"))

    for step in (1, 2):
        message = encode_message(ItemRef("r1", step, 0, 0), Item("0", 0, {}))
        assert app.tasks["batchq.run_item"].apply(args=(message,)).result == "refused"

    assert caplog.text.count("changed after it was signed") == 2


def test_messages_from_outside_run_nothing_and_the_worker_goes_on(
    cluster: Any, redis_client: Any, wait_for: Callable[..., None]
) -> None:
    # Without a signature, which refuses all of these at once.
    unsigned = cluster.services.settings.model_copy(update={"signing_key": "off"})
    cluster.services = build_services(unsigned, patience_s=10)
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
        message["content-type"] = changes.pop("content_type", "application/x-batchq")
        message["headers"] = {**template["headers"], **changes}
        redis_client.lpush("batchq.cpu", json.dumps(message))

    push(pickle.dumps(([], {}, Hostile())), content_type="application/x-python-serialize")
    push(json.dumps([[f"touch {mark}"], {}, {}]).encode(), task="os.system")
    push(json.dumps([[f"touch {mark}"], {}, {}]).encode(), task="celery.map")
    push(json.dumps([[{**GOOD, "data": "x" * 26_000_000}], {}, {}]).encode())
    push(zlib.compress(b"[" + b"0," * 50_000_000), compression="application/x-gzip")
    push(json.dumps([[GOOD], {}, {}]).encode(), content_type="application/data")
    push(json.dumps([[GOOD], {}, {}]).encode(), content_type=None)
    push(b"[" * 100_000)
    push(b"\xff\xfe not json")
    for text in ('{"body": "?"}', "[1]", "no JSON", b"\xff", "[" * 100_000):
        redis_client.lpush("batchq.cpu", text)

    info = cluster.submit("""
        name: sound
        steps:
          - {name: note, input: {generate: 4}, task: "cluster_tasks:note"}
        """)
    assert len(list(cluster.finish(info).read_collated(1))) == 4
    assert not mark.exists()
    assert not redis_client.llen("batchq.cpu")
    logs = (cluster.folder / "worker1.log").read_text()
    assert "refused a message: 26,000," in logs
    assert "Connection to broker lost" not in logs
    assert "refused a message: it is packed" in logs
    assert "refused a message: no task has this name: 'os.system'" in logs
    assert "Traceback" not in logs
    assert max(map(len, logs.splitlines())) < 500


def sent(app: BatchqApp, redis_client: Any) -> Any:
    """A message as it is on the wire, out of a queue that nobody reads."""
    app.send_task("batchq.run_item", args=(GOOD,), queue="batchq.nobody")
    message = json.loads(redis_client.rpop("batchq.nobody"))
    app.close()
    return message
