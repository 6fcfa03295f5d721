"""Messages without redelivery: what a worker holds goes back, or the ledger sends it again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from kombu import Consumer

from batchq.embedded.server import start_redis
from batchq.progress import RunState
from batchq.queue.app import make_app
from batchq.settings import Settings

WAITS = """
    name: {name}
    steps:
      - {{name: wait, input: {{generate: {items}}}, task: "cluster_tasks:waits", batch_size: 4}}
    """


def numbers(folder: Path) -> list[int]:
    path = folder / "calls.txt"
    return sorted(map(int, path.read_text().split())) if path.exists() else []


def queued(client) -> list[tuple[str, float]]:
    """(its index, time of its batch) of every message, oldest first."""
    found = [json.loads(text) for text in reversed(client.lrange("batchq.cpu", 0, -1))]
    return [(one["headers"]["argsrepr"], one["headers"]["sent_at"]) for one in found]


def test_a_message_that_was_lost_is_sent_again_though_the_queue_never_empties(
    cluster, redis_client
):
    cluster.coordinator()
    info = cluster.submit(WAITS.format(name="first", items=4))
    cluster.wait_for(lambda: redis_client.llen("batchq.cpu") == 4, "its messages are queued", 20)
    for _ in range(2):
        redis_client.rpop("batchq.cpu")
    before = {sent_at for _, sent_at in queued(redis_client)}
    other = cluster.submit(WAITS.format(name="second", items=4))
    cluster.wait_for(lambda: redis_client.llen("batchq.cpu") == 6, "six are queued", 20)

    for _ in range(2):  # those of the first run are out; nobody will ever bring them
        redis_client.rpop("batchq.cpu")
    cluster.wait_for(lambda: redis_client.llen("batchq.cpu") == 8, "all four come again", 20)

    assert not before & {sent_at for _, sent_at in queued(redis_client)}
    (cluster.folder / "go").touch()
    cluster.worker("-P", "threads", "-c", "4")
    assert list(cluster.finish(info).read_collated(1)) == [1, 2, 3, 4]
    assert list(cluster.finish(other).read_collated(1)) == [1, 2, 3, 4]
    assert numbers(cluster.folder) == [1, 1, 2, 2, 3, 3, 4, 4]


def test_a_message_that_still_waits_in_the_queue_is_not_sent_again(cluster, redis_client):
    cluster.coordinator()
    info = cluster.submit(WAITS.format(name="patient", items=4))
    ledger = cluster.services.ledger
    cluster.wait_for(lambda: redis_client.llen("batchq.cpu") == 4, "its messages are queued", 20)
    sent_at = queued(redis_client)[0][1]

    cluster.wait_for(lambda: time.time() - sent_at > 6, "they are older than two leases", 20)

    assert redis_client.llen("batchq.cpu") == 4
    assert ledger.state(info.run) is RunState.RUNNING


def test_a_worker_takes_as_many_messages_at_once_as_it_has_slots_free(redis_client, redis_url):
    app, got = make_app(Settings(broker_url=redis_url)), []
    with app.connection_for_write() as connection, connection.Producer() as producer:
        for number in range(12):
            producer.publish(number, routing_key="batchq.cpu", serializer="json")
    redis_client.lset("batchq.cpu", -3, "no envelope")

    with app.connection_for_read() as connection, connection.channel() as channel:
        channel.basic_qos(0, 8, False)
        queue = app.amqp.queues["batchq.cpu"]
        with Consumer(channel, [queue], on_message=got.append, accept=["json"]):
            connection.drain_events(timeout=5)

            assert [message.decode() for message in got] == [0, 1, 3, 4, 5, 6, 7]
            assert redis_client.llen("batchq.cpu") == 4
            got[0].ack()
            connection.drain_events(timeout=5)
            assert got[-1].decode() == 8


def test_the_broker_keeps_no_copy_of_a_message_that_a_worker_holds(cluster, redis_client):
    cluster.coordinator()
    cluster.worker("-P", "threads", "-c", "2")
    info = cluster.submit(WAITS.format(name="held", items=2))
    cluster.wait_for(lambda: len(numbers(cluster.folder)) == 2, "both items run", 20)

    names = redis_client.keys("unacked*")
    (cluster.folder / "go").touch()

    assert names == []
    assert list(cluster.finish(info).read_collated(1)) == [1, 2]


def test_a_worker_that_is_stopped_puts_back_what_it_has_not_run(cluster, redis_client):
    cluster.coordinator()
    info = cluster.submit(WAITS.format(name="handed_over", items=4))
    cluster.wait_for(lambda: redis_client.llen("batchq.cpu") == 4, "its messages are queued", 20)
    sent = queued(redis_client)
    stopped = cluster.worker("-c", "1", "--prefetch-multiplier", "4")
    cluster.wait_for(lambda: len(numbers(cluster.folder)) == 1, "one item runs", 20)
    cluster.wait_for(lambda: redis_client.llen("batchq.cpu") == 0, "the others are prefetched", 20)

    stopped.send_signal(signal.SIGTERM)
    (cluster.folder / "go").touch()
    stopped.wait(20)

    # On a slow machine the coordinator has missed them by now: its own messages are newer.
    put_back = set(sent) & set(queued(redis_client))
    assert 0 < len(put_back) == 4 - len(numbers(cluster.folder))
    cluster.worker("-P", "threads", "-c", "4")
    assert list(cluster.finish(info).read_collated(1)) == [1, 2, 3, 4]
    assert numbers(cluster.folder) == [1, 2, 3, 4]


def test_a_worker_whose_redis_is_gone_leaves_no_file_behind(tmp_path, wait_for):
    (tmp_path / "slow.py").write_text("import time\ndef nap(item):\n    time.sleep(600)\n")
    (tmp_path / "scratch").mkdir()
    server = start_redis(tmp_path / "redis", Settings())
    environment = {
        **os.environ,
        "BATCHQ_BROKER_URL": server.url,
        "PYTHONPATH": str(tmp_path),
        "TMPDIR": str(tmp_path / "scratch"),
    }
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "batchq", "worker", "-P", "solo", "-l", "info"],
            env=environment,
            cwd=tmp_path,
            stdout=out,
            stderr=out,
        )
    try:
        wait_for(lambda: "ready." in log.read_text(), "the worker is ready", 30)
        from batchq.queue.app import make_app

        app = make_app(Settings(broker_url=server.url))
        later = {"queue": "batchq.cpu", "countdown": 600}
        app.send_task("batchq.run_item", args=({},), **later)
        app.close()
        wait_for(lambda: "received" in log.read_text(), "it holds a message", 30)

        server.stop()

        wait_for(lambda: "could not be put back" in log.read_text(), "it lets go of it", 30)
        assert "EMERGENCY" not in log.read_text()
        assert not list((tmp_path / "scratch").iterdir())
    finally:
        worker.kill()
        worker.wait(10)
