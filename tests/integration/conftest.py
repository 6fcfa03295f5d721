"""A cluster as a user would start it: `celery -A batchq worker` processes on a real Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from batchq.manifest.loader import load_manifest
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import make_plan
from batchq.ports import RunInfo
from batchq.progress import RunState
from batchq.queue import control
from batchq.runs.life import create_run, open_folder
from batchq.services import Services, build_services
from batchq.settings import Settings
from batchq.store import RunFolder

QUIET = ("--without-gossip", "--without-mingle", "-l", "warning")


@dataclass
class Cluster:
    """Workers and a coordinator of one broker; everything is stopped at the end of the test."""

    folder: Path
    services: Services
    wait_for: Callable[..., None]
    fork: Callable[..., subprocess.Popen[str]]
    children: list[subprocess.Popen[Any]] = field(default_factory=list)

    def worker(
        self,
        *options: str,
        cwd: Path | None = None,
        before: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[Any]:
        """Starts a plain Celery worker of the app, in a session of its own.

        `before` is a command that runs it elsewhere, `env` what it gets to know besides.
        """
        settings = self.services.settings
        whole = {
            **os.environ,
            "BATCHQ_BROKER_URL": settings.broker_url,
            "BATCHQ_SIGNING_KEY": settings.signing_key,
            "BATCHQ_HOME": str(settings.home),
            "BATCHQ_LEASE_TTL_S": str(settings.lease_ttl_s),
            "BATCHQ_TASKS": '["cluster_tasks"]',
            "PYTHONPATH": str(self.folder),
            **(env or {}),
        }
        number = len(self.children)
        log = self.folder / f"worker{number}.log"
        with log.open("wb") as out:
            place = {"env": whole, "cwd": cwd or self.folder, "stdout": out, "stderr": out}
            given = ["-A", "batchq", "worker", *QUIET, "-n", f"w{number}@test", *options]
            if before or "gevent" in options:  # which patches what others have imported
                command = [*before, sys.executable, "-m", "celery", *given]
                child = subprocess.Popen(command, start_new_session=True, **place)
            else:
                child = self.fork("celery", given, start_new_session=True, **place)
        self.children.append(child)
        return child

    def coordinator(self) -> subprocess.Popen[Any]:
        """Starts the worker of the control queue."""
        return self.worker("-Q", "batchq.control", "-P", "threads", "-c", "2")

    def submit(self, manifest: str) -> RunInfo:
        """Plans a manifest, makes its run folder and hands it to the coordinator."""
        path = self.folder / "manifest.yaml"
        path.write_text(textwrap.dedent(manifest))
        loaded = load_manifest(path)
        plan = make_plan(loaded)
        info = create_run(plan, manifest_lock(loaded, plan), self.services, now=time.time())
        control.start(info, self.services)
        return info

    def state(self, info: RunInfo) -> RunState | None:
        return self.services.ledger.state(info.run)

    def finish(self, info: RunInfo, state: RunState = RunState.COMPLETED) -> RunFolder:
        """Waits until the run is over and returns its folder."""
        self.wait_for(lambda: self.is_over(info), f"{info.run} is over: {self.logs()}", 60)
        assert self.state(info) is state, self.logs()
        return open_folder(info.folder)

    def is_over(self, info: RunInfo) -> bool:
        return info.run not in self.services.ledger.runs()

    def logs(self) -> str:
        """What the processes said, for a failing test."""
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("worker*.log"))

    def stop(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in self.children:
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait(5)


TASKS = """
    import os, signal, time
    from pathlib import Path

    HERE = Path(__file__).parent

    def note(item):
        with open(HERE / "calls.txt", "a") as file:
            file.write(f"{item['number']}\\n")
        return {"n": item["number"], "confidence": 0.5}

    def dies(item):
        note(item)
        if item["number"] == 3:
            os._exit(9)
        return item

    def waits(item):
        note(item)
        while not (HERE / "go").exists():
            time.sleep(0.01)
        return item["number"]

    def odd_fails(item):
        if item["number"] % 2:
            raise ValueError("odd")
        return item["number"]

    def total(items):
        return {"sum": sum(item["n"] for item in items), "count": len(items)}

    def large(item):
        return "x" * 5_000_000

    def size(item):
        return len(item)
"""


@pytest.fixture
def cluster(
    redis_url: str,
    tmp_path: Path,
    wait_for: Callable[..., None],
    fork: Callable[..., subprocess.Popen[str]],
) -> Iterator[Cluster]:
    """An empty cluster, whose leases end after two seconds."""
    (tmp_path / "cluster_tasks.py").write_text(textwrap.dedent(TASKS))
    settings = Settings(broker_url=redis_url, home=tmp_path / ".batchq", lease_ttl_s=2)
    made = Cluster(tmp_path, build_services(settings, patience_s=10), wait_for, fork)
    yield made
    made.stop()


def calls(folder: Path) -> list[int]:
    """The numbers of the items that a task of the cluster was called with, in order."""
    path = folder / "calls.txt"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@contextmanager
def _post_server(answer: Callable[[Message, bytes], int]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(answer(self.headers, body))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def post_server() -> Callable[[Callable[[Message, bytes], int]], AbstractContextManager[str]]:
    """`with post_server(answer) as url` takes POSTs; `answer(headers, body)` gives their status."""
    return _post_server
