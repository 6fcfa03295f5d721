from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from batchq.progress import RunState
from batchq.queue import control
from batchq.runs.life import load_run
from batchq.store.canary import read_canary, write_canary

THREADS = ("-P", "threads", "-c", "8")
MANIFEST = """
    name: first
    canary: {{items: {items}, max_failures: {may_fail}, then: {then}}}
    config: {{retry: {{max_retries: 0}}}}
    steps:
      - name: note
        input: {{generate: 20}}
        task: "cluster_tasks:{task}"
        batch_size: 4
      - {{name: size, task: "cluster_tasks:size"}}
    """


def submit(
    cluster: Any, items: int, *, then: str = "ask", task: str = "note", may_fail: int = 0
) -> Any:
    cluster.coordinator()
    cluster.worker(*THREADS)
    return cluster.submit(MANIFEST.format(items=items, then=then, task=task, may_fail=may_fail))


def numbers(folder: Path) -> list[int]:
    path = folder / "calls.txt"
    return sorted(int(line) for line in path.read_text().split()) if path.exists() else []


def wait_for_pause(cluster: Any, info: Any) -> None:
    ledger = cluster.services.ledger
    cluster.wait_for(lambda: ledger.is_resting(info.run), f"it is paused: {cluster.logs()}", 60)
    assert ledger.state(info.run) is RunState.PAUSED


def approve(cluster: Any, info: Any, folder: Any) -> None:
    write_canary(folder, replace(read_canary(folder), state="approved"))
    control.resume(info, cluster.services, is_private=False)


def open_folder(info: Any) -> Any:
    from batchq.runs.life import open_folder

    return open_folder(info.folder)


def test_the_first_items_run_alone_until_somebody_approves(cluster):
    info = submit(cluster, 6)

    wait_for_pause(cluster, info)

    assert numbers(cluster.folder) == [1, 2, 3, 4, 5, 6]
    folder = open_folder(info)
    report = read_canary(folder)
    assert (report.state, report.items, report.failed, report.rest_items) == ("asking", 6, 0, 14)
    assert "batchq approve first@v0" in cluster.services.ledger.about(info.run)["reason"]

    approve(cluster, info, folder)
    done = cluster.finish(info)

    assert [row["n"] for row in done.read_collated(1)] == list(range(1, 21))
    assert numbers(cluster.folder) == list(range(1, 21))


def test_a_resume_is_no_approval(cluster):
    info = submit(cluster, 6)
    wait_for_pause(cluster, info)

    control.resume(info, cluster.services, is_private=False)
    wait_for_pause(cluster, info)

    assert numbers(cluster.folder) == [1, 2, 3, 4, 5, 6]


def test_first_items_that_fill_their_batches_are_collated_at_once(cluster):
    info = submit(cluster, 8)

    wait_for_pause(cluster, info)

    assert open_folder(info).collated_batches(1) == {0, 1}


def test_a_run_goes_on_by_itself_where_nobody_is_to_be_asked(cluster):
    info = submit(cluster, 6, then="go")

    folder = cluster.finish(info)

    assert read_canary(folder).state == "passed"
    assert [row["n"] for row in folder.read_collated(1)] == list(range(1, 21))


def test_too_many_failures_pause_the_run_also_where_nobody_is_to_be_asked(cluster):
    info = submit(cluster, 6, then="go", task="odd_fails", may_fail=2)

    wait_for_pause(cluster, info)

    assert read_canary(open_folder(info)).state == "failing"
    reason = cluster.services.ledger.about(info.run)["reason"]
    assert reason.startswith("3 of the first 6 items failed, 2 may")


def test_failures_that_are_allowed_do_not_stop_it(cluster):
    info = submit(cluster, 6, then="go", task="odd_fails", may_fail=3)

    folder = cluster.finish(info, RunState.COMPLETED)

    assert folder.summary(1).failed == 10


def test_a_pause_among_the_first_items_is_gone_on_with(cluster):
    info = submit(cluster, 6, task="waits")
    ledger = cluster.services.ledger
    cluster.wait_for(lambda: len(numbers(cluster.folder)) == 6, "all six have begun", 60)

    control.stop(info.run, RunState.PAUSED, "a person", cluster.services)
    (cluster.folder / "go").touch()
    wait_for_pause(cluster, info)
    control.resume(load(info, cluster), cluster.services, is_private=False)
    cluster.wait_for(lambda: "canary" in ledger.about(info.run)["reason"], "it asks", 60)
    wait_for_pause(cluster, info)

    assert numbers(cluster.folder) == [1, 2, 3, 4, 5, 6]


def load(info: Any, cluster: Any) -> Any:
    record = cluster.services.listing.run(info.run)
    return load_run(record)


def test_a_run_of_no_more_items_than_the_canary_has_none(cluster):
    info = submit(cluster, 20)

    folder = cluster.finish(info)

    assert read_canary(folder) is None


def test_an_emptied_redis_does_not_take_back_an_approval(cluster, redis_client):
    info = submit(cluster, 6)
    wait_for_pause(cluster, info)
    redis_client.delete(*redis_client.scan_iter("*{" + info.run + "}*"))

    approve(cluster, info, open_folder(info))
    cluster.finish(info)

    assert numbers(cluster.folder) == list(range(1, 21))
