from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

from batchq.queue.deaths import reason_of

TASKS = """
    import os, resource, signal, time

    LIMIT = 500 * 2**20

    def ends(config):
        how = config["how"]
        if how == "status":
            os._exit(7)
        if how == "kernel":
            return {"how": len(b"x" * LIMIT)}
        if how == "eats":
            resource.setrlimit(resource.RLIMIT_AS, (2**31, -1))
            bytearray(2**40)
        if how == "time":
            time.sleep(60)
        if how == "deaf":
            while True:
                try:
                    time.sleep(60)
                except Exception:
                    continue
        large = bytearray(150 * 2**20) if how == "SIGKILL" else None
        if how.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, how))
        return {"how": how}
"""

MANIFEST = """
    name: deaths
    task: "cluster_tasks:ends"
    config: {{timeout: 1s}}
    matrix:
      name: "{{how}}"
      axes: {{how: [ok, time, SIGKILL, SIGSEGV, status, eats, deaf{kernel}]}}
"""

LIMIT = 500 * 2**20
ENTER = ("sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"')


@pytest.fixture
def group(wait_for):
    """A control group that may not use more memory than LIMIT; None where none can be made."""
    folder = Path("/sys/fs/cgroup/memory", f"batchq-test-{os.getpid()}")
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(LIMIT))
    except OSError:
        yield None
        return
    yield folder
    wait_for(lambda: not (folder / "cgroup.procs").read_text(), "the group is empty", 10)
    folder.rmdir()


def test_a_job_that_takes_its_process_down_is_one_failed_item_with_the_reason(group, cluster):
    (cluster.folder / "cluster_tasks.py").write_text(textwrap.dedent(TASKS))
    cluster.coordinator()
    cluster.worker("-P", "prefork", "-c", "2", before=(*ENTER, str(group)) if group else ())

    folder = cluster.finish(cluster.submit(MANIFEST.format(kernel=", kernel" if group else "")))

    outcomes = {one.item_id: one for one in folder.outcomes(1)}
    errors = {name: one.error for name, one in outcomes.items() if one.error}
    assert outcomes["ok"].output == {"how": "ok"}
    if group:
        killed = errors.pop("kernel")
        assert killed.kind == "worker_lost"
        assert killed.message == "its process was killed: the machine was out of memory (SIGKILL)"
    assert {name: error.kind for name, error in errors.items()} == {
        "SIGSEGV": "worker_lost",
        "SIGKILL": "worker_lost",
        "status": "worker_lost",
        "eats": "memory",
        "time": "timeout",
        "deaf": "timeout",
    }
    assert errors["SIGSEGV"].message == "its process died of a segmentation fault (SIGSEGV)"
    assert errors["SIGKILL"].message.startswith("its process was killed")
    assert errors["status"].message == "its process ended itself with exit status 7"
    assert errors["time"].message == "cluster_tasks:ends did not end within 1 s"
    assert errors["deaf"].message.endswith("it did not stop at its time limit (6 s)")
    assert errors["eats"].message == "cluster_tasks:ends ran out of memory"
    assert all(len(one.attempts) == 1 for one in outcomes.values())
    measured = {name: one.measured for name, one in outcomes.items()}
    # Known, since no other process dies beside it: the other slot has `time` in it.
    assert measured["SIGKILL"].peak_bytes > 150 * 2**20
    assert measured["deaf"].duration_s > 5
    assert measured["deaf"].peak_bytes > 10 * 2**20
    assert (Path(folder.url) / "items/status/01_output.stats.json").exists()


@pytest.mark.parametrize("number", [4, 5, 7, 31])
def test_every_signal_has_a_reason(number):
    from billiard.exceptions import WorkerLostError

    reason = reason_of(WorkerLostError(f"Worker exited prematurely: signal {number} (X) Job: 1."))

    assert reason.startswith("its process died of a")
