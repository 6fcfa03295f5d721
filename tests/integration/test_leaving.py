"""Workers that are told to end: they finish within a grace, or hand back what they hold."""

from __future__ import annotations

import signal
import time
from collections import Counter
from typing import Any

import pytest

SLOW = """
    import time
    from pathlib import Path

    def nap(item):
        with open(Path(__file__).parent / "calls.txt", "a") as file:
            file.write(f"{item['number']}\\n")
        time.sleep(0.2)
        return item["number"]
"""


def calls(cluster: Any) -> Counter[int]:
    path = cluster.folder / "calls.txt"
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


def test_workers_that_are_replaced_one_by_one_under_load_lose_nothing(cluster: Any) -> None:
    tasks = (cluster.folder / "cluster_tasks.py").read_text()
    (cluster.folder / "cluster_tasks.py").write_text(tasks + SLOW.replace("\n    ", "\n"))
    cluster.coordinator()
    old = [cluster.worker("-P", "threads", "-c", "4") for _ in range(2)]
    info = cluster.submit("""
        name: replaced
        steps:
          - {name: nap, input: {generate: 120}, task: "cluster_tasks:nap", batch_size: 20}
        """)

    for number, worker in enumerate(old):
        cluster.wait_for(
            lambda number=number: len(calls(cluster)) >= 15 + 20 * number, "it is under load", 30
        )
        cluster.worker("-P", "threads", "-c", "4")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0

    assert list(cluster.finish(info).read_collated(1)) == list(range(1, 121))
    assert calls(cluster) == Counter(range(1, 121))


@pytest.mark.parametrize("pool", ["threads", "prefork", "gevent"])
def test_items_that_do_not_end_are_handed_back_after_the_grace_or_a_second_word(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    cluster.coordinator()
    (scratch := cluster.folder / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setenv("BATCHQ_GRACE_S", "1")
    patient = cluster.worker("-P", pool, "-c", "2")
    info = cluster.submit("""
        name: endless
        steps:
          - {name: wait, input: {generate: 2}, task: "cluster_tasks:waits"}
        """)
    cluster.wait_for(lambda: calls(cluster).total() == 2, "both items run", 20)

    patient.send_signal(signal.SIGTERM)
    assert patient.wait(10) == 1
    leases = cluster.services.ledger.leases(info.run, 1, 0)
    assert not {lease.owner for lease in leases.values()} & set(cluster.services.ledger.alive())

    monkeypatch.setenv("BATCHQ_GRACE_S", "600")
    told_twice = cluster.worker("-P", pool, "-c", "2")
    cluster.wait_for(lambda: calls(cluster).total() == 4, "both items run again", 30)
    told_twice.send_signal(signal.SIGTERM)
    time.sleep(0.5)  # two signals at once would be one
    told_twice.send_signal(signal.SIGTERM)
    assert told_twice.wait(10) == 1
    assert not list(scratch.iterdir())

    (cluster.folder / "go").touch()
    cluster.worker("-P", pool, "-c", "2")
    assert list(cluster.finish(info).read_collated(1)) == [1, 2]
