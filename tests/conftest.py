"""What tests share: a real Redis, the real simulator, the command line as a process, no leaks."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from batchq.embedded.server import RedisServer, start_redis
from batchq.settings import Settings, redis_client_url

LEAK_MARK = "PYTEST_LEAK_MARK"


def _wait_for(condition: Callable[[], object], what: str, deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {deadline_s:g} s: {what}")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """`wait_for(condition, what, deadline_s=10)` returns when it holds, else fails the test."""
    return _wait_for


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One embedded Redis for all tests of this process."""
    folder = Path(tempfile.mkdtemp(prefix="batchq-test-"))
    server = start_redis(folder, Settings())
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A redis-py client of an empty database."""
    with redis.Redis.from_url(redis_client_url(redis_server.url)) as client:
        client.flushall()
        yield client


@pytest.fixture
def redis_url(redis_server: RedisServer, redis_client: redis.Redis) -> str:
    """The URL, as Celery and `BATCHQ_BROKER_URL` read it, of an empty Redis."""
    return redis_server.url


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(LEAK_MARK) == mark:
                found.append(process)
        except psutil.Error:  # ended, or not ours to look at
            continue
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(autouse=True)
def no_process_is_left(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Fails a test of real processes that leaves one behind, and ends it."""
    if not {"integration", "acceptance"} & set(request.path.parts):
        yield
        return
    mark = uuid.uuid4().hex
    monkeypatch.setenv(LEAK_MARK, mark)  # every descendant inherits it

    yield

    deadline = time.monotonic() + 5.0
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    names = []
    for process in left:
        try:
            names.append(f"{process.pid} {' '.join(process.cmdline())[:160]}")
            process.kill()
        except psutil.Error:
            continue
    if names:
        pytest.fail("processes left behind:\n" + "\n".join(names))
