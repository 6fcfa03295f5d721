from __future__ import annotations

import textwrap

import pytest

from batchq.queue.deaths import reason_of

TASKS = """
    import os, signal, time

    def ends(config):
        how = config["how"]
        if how == "status":
            os._exit(7)
        if how == "time":
            time.sleep(60)
        if how == "deaf":
            while True:
                try:
                    time.sleep(60)
                except Exception:
                    continue
        if how.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, how))
        return {"how": how}
"""

MANIFEST = """
    name: deaths
    task: "cluster_tasks:ends"
    config: {timeout: 1s}
    matrix:
      name: "{how}"
      axes: {how: [ok, SIGSEGV, SIGKILL, status, time, deaf]}
"""


def test_a_job_that_takes_its_process_down_is_one_failed_item_with_the_reason(cluster):
    (cluster.folder / "cluster_tasks.py").write_text(textwrap.dedent(TASKS))
    cluster.coordinator()
    cluster.worker("-P", "prefork", "-c", "2")

    folder = cluster.finish(cluster.submit(MANIFEST))

    outcomes = {one.item_id: one for one in folder.outcomes(1)}
    errors = {name: one.error for name, one in outcomes.items() if one.error}
    assert outcomes["ok"].output == {"how": "ok"}
    assert {name: error.kind for name, error in errors.items()} == {
        "SIGSEGV": "worker_lost",
        "SIGKILL": "worker_lost",
        "status": "worker_lost",
        "time": "timeout",
        "deaf": "timeout",
    }
    assert errors["SIGSEGV"].message == "its process died of a segmentation fault (SIGSEGV)"
    assert errors["SIGKILL"].message.startswith("its process was killed")
    assert errors["status"].message == "its process ended itself with exit status 7"
    assert errors["time"].message == "cluster_tasks:ends did not end within 1 s"
    assert errors["deaf"].message.endswith("it did not stop at its time limit (6 s)")
    assert all(len(one.attempts) == 1 for one in outcomes.values())


@pytest.mark.parametrize("number", [4, 5, 7, 31])
def test_every_signal_has_a_reason(number):
    from billiard.exceptions import WorkerLostError

    reason = reason_of(WorkerLostError(f"Worker exited prematurely: signal {number} (X) Job: 1."))

    assert reason.startswith("its process died of a")
