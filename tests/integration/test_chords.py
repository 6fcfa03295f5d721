from __future__ import annotations

import json
import os
import signal
from collections import Counter

import pytest

from batchq.ports import ItemRef
from batchq.progress import RunState
from batchq.queue import control
from batchq.queue.app import make_app
from batchq.queue.message import encode_end, encode_message

POOLS = {
    "prefork": ("-P", "prefork", "-c", "2"),
    "threads": ("-P", "threads", "-c", "8"),
    "gevent": ("-P", "gevent", "-c", "8"),
}


def calls(cluster) -> Counter[int]:
    path = cluster.folder / "calls.txt"
    return Counter(int(line) for line in path.read_text().split()) if path.exists() else Counter()


@pytest.mark.parametrize("pool", POOLS)
def test_a_run_of_many_batches_is_collated_in_input_order_by_every_pool(
    cluster, pool, redis_client
):
    cluster.coordinator()
    cluster.worker(*POOLS[pool])

    info = cluster.submit("""
        name: many
        steps:
          - {name: note, input: {generate: 130}, task: "cluster_tasks:note", batch_size: 25}
        """)
    folder = cluster.finish(info)

    values = list(folder.read_collated(1))
    assert [value["n"] for value in values] == list(range(1, 131))
    assert calls(cluster) == Counter(range(1, 131))
    assert not list(redis_client.scan_iter("celery-task-meta-*"))
    assert not list(redis_client.scan_iter("batchq:*:out:*"))


def test_no_more_batches_than_the_window_are_in_redis_at_once(cluster):
    cluster.coordinator()
    cluster.worker(*POOLS["threads"])

    info = cluster.submit("""
        name: window
        steps:
          - name: wait
            input: {generate: 60}
            task: "cluster_tasks:waits"
            batch_size: 5
            concurrent_batches: 2
        """)
    ledger = cluster.services.ledger
    cluster.wait_for(lambda: len(calls(cluster)) == 8, "both batches are in flight", 20)
    assert set(ledger.open_batches(info.run)) == {(1, 0), (1, 1)}
    assert ledger.in_flight(info.run) == 8
    assert ledger.queue_length("batchq.cpu") <= 2
    (cluster.folder / "go").touch()

    assert list(cluster.finish(info).read_collated(1)) == list(range(1, 61))


def test_steps_are_chained_by_their_collated_output_and_once_sees_it_whole(cluster):
    cluster.coordinator()
    cluster.worker(*POOLS["threads"])

    info = cluster.submit("""
        name: chain
        steps:
          - {name: note, input: {generate: 30}, task: "cluster_tasks:note", batch_size: 7}
          - {name: total, task: "cluster_tasks:total", once: true}
        """)
    folder = cluster.finish(info)

    assert next(iter(folder.outcomes(2))).output == {"sum": 465, "count": 30}


def test_failed_items_stand_in_the_errors_file_and_the_others_are_collated(cluster):
    cluster.coordinator()
    cluster.worker(*POOLS["threads"])

    info = cluster.submit("""
        name: odd
        steps:
          - name: odd
            input: {generate: 10}
            task: "cluster_tasks:odd_fails"
            retry: {max_retries: 0}
        """)
    folder = cluster.finish(info)

    assert list(folder.read_collated(1)) == [2, 4, 6, 8, 10]
    errors = json.loads(folder.files.read("01_errors.json"))
    assert [row["item_id"] for row in errors] == ["0", "2", "4", "6", "8"]
    assert errors[0]["error"] == "ValueError: odd"


def test_a_step_that_stops_on_an_error_fails_the_run_and_keeps_what_is_done(cluster):
    cluster.coordinator()
    cluster.worker("-P", "threads", "-c", "1")

    info = cluster.submit("""
        name: strict
        steps:
          - name: odd
            input: {generate: 300}
            task: "cluster_tasks:odd_fails"
            stop_on_error: true
            batch_size: 10
            retry: {max_retries: 0}
        """)
    folder = cluster.finish(info, RunState.FAILED)

    assert folder.read_metadata().status == "failed"
    assert folder.summary(1).failed == 1
    assert folder.summary(1).total < 20


def test_an_item_that_ends_its_process_fails_alone(cluster):
    cluster.coordinator()
    cluster.worker(*POOLS["prefork"])

    info = cluster.submit("""
        name: deadly
        steps:
          - {name: dies, input: {generate: 6}, task: "cluster_tasks:dies"}
        """)
    folder = cluster.finish(info)

    assert [value["number"] for value in folder.read_collated(1)] == [1, 2, 4, 5, 6]
    (failed,) = [one for one in folder.outcomes(1) if not one.is_ok]
    assert (failed.item_id, failed.error.kind) == ("2", "worker_lost")


def test_items_of_a_killed_worker_run_again_elsewhere_and_the_others_do_not(cluster):
    cluster.coordinator()
    doomed = cluster.worker("-P", "threads", "-c", "4")
    info = cluster.submit("""
        name: killed
        steps:
          - {name: wait, input: {generate: 12}, task: "cluster_tasks:waits", batch_size: 6}
        """)
    cluster.wait_for(lambda: len(calls(cluster)) == 4, "four items run", 20)
    os.killpg(doomed.pid, signal.SIGKILL)
    (cluster.folder / "go").touch()
    cluster.worker("-P", "threads", "-c", "4")

    folder = cluster.finish(info)

    assert list(folder.read_collated(1)) == list(range(1, 13))
    assert max(calls(cluster).values()) == 2
    assert sum(calls(cluster).values()) == 16


def test_a_killed_coordinator_is_followed_by_another_and_nothing_runs_twice(cluster):
    doomed = cluster.coordinator()
    cluster.worker("-P", "threads", "-c", "4")
    info = cluster.submit("""
        name: takeover
        steps:
          - name: wait
            input: {generate: 40}
            task: "cluster_tasks:waits"
            batch_size: 5
            concurrent_batches: 2
        """)
    cluster.wait_for(lambda: len(calls(cluster)) == 4, "four items run", 20)
    os.killpg(doomed.pid, signal.SIGKILL)
    (cluster.folder / "go").touch()
    cluster.coordinator()

    folder = cluster.finish(info)

    assert list(folder.read_collated(1)) == list(range(1, 41))
    assert calls(cluster) == Counter(range(1, 41))


def test_a_message_of_a_done_item_that_comes_again_is_not_run(cluster):
    cluster.coordinator()
    cluster.worker(*POOLS["threads"])
    info = cluster.submit("""
        name: again
        steps:
          - {name: note, input: {generate: 5}, task: "cluster_tasks:note"}
        """)
    folder = cluster.finish(info)
    app = make_app(cluster.services.settings)
    items = folder.batch(1, 0, 50)

    for item in items:
        message = encode_message(ItemRef(info.run, 1, 0, item.index), item)
        app.send_task("batchq.run_item", args=(message,), queue="batchq.cpu")
    app.send_task(
        "batchq.collate_batch", args=(encode_end(info.run, 1, 0),), queue="batchq.control"
    )

    client = cluster.services.redis
    cluster.wait_for(lambda: not client.exists("batchq.cpu"), "all are taken")
    assert calls(cluster) == Counter(range(1, 6))
    assert len(list(folder.read_collated(1))) == 5


def test_a_paused_run_starts_no_item_and_a_resume_runs_the_rest(cluster):
    cluster.coordinator()
    cluster.worker("-P", "threads", "-c", "2")
    info = cluster.submit("""
        name: paused
        steps:
          - {name: wait, input: {generate: 20}, task: "cluster_tasks:waits", batch_size: 5}
        """)
    cluster.wait_for(lambda: len(calls(cluster)) == 2, "two items run", 20)
    control.stop(info.run, RunState.PAUSED, "a test", cluster.services)
    (cluster.folder / "go").touch()
    ledger = cluster.services.ledger
    cluster.wait_for(lambda: not ledger.open_batches(info.run), "nothing is in flight", 20)
    assert len(calls(cluster)) == 2

    control.resume(info, cluster.services, is_private=False)

    assert list(cluster.finish(info).read_collated(1)) == list(range(1, 21))
    assert calls(cluster) == Counter(range(1, 21))


def test_a_run_whose_redis_was_emptied_goes_on_from_its_folder(cluster, redis_client):
    cluster.coordinator()
    cluster.worker("-P", "threads", "-c", "2")
    info = cluster.submit("""
        name: emptied
        steps:
          - {name: note, input: {generate: 40}, task: "cluster_tasks:note", batch_size: 10}
          - {name: wait, task: "cluster_tasks:total", once: true}
        """)
    folder = cluster.finish(info)
    folder.files.remove("state/01_batches/000002.jsonl")
    folder.files.remove("state/01_done.json")
    folder.files.remove("state/02_done.json")
    redis_client.flushall()

    control.resume(info, cluster.services, is_private=False)

    assert len(list(cluster.finish(info).read_collated(1))) == 40
    assert calls(cluster) == Counter([*range(1, 41), *range(21, 31)])


def test_an_item_of_five_megabytes_goes_through(cluster):
    cluster.coordinator()
    cluster.worker(*POOLS["threads"])

    info = cluster.submit("""
        name: large
        steps:
          - {name: large, input: {generate: 2}, task: "cluster_tasks:large"}
          - {name: size, task: "cluster_tasks:size"}
        """)

    assert list(cluster.finish(info).read_collated(2)) == [5_000_000, 5_000_000]
