"""What tests share: real servers (Redis, S3, the simulator), the command line, no leaks."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
def free_port() -> Callable[[], int]:
    """`free_port()` returns a port at which nobody listens."""

    def find() -> int:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            return int(found.getsockname()[1])

    return find


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


_SIGNATURE = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def warm() -> Iterator[Path]:
    """The socket of a server that runs programs without the start of a Python; see warm.py."""
    folder = Path(tempfile.mkdtemp(prefix="batchq-warm-"))  # a short path, for a socket
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("warm.py")), str(folder / "socket")],
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    yield folder / "socket"
    server.kill()
    server.communicate()
    shutil.rmtree(folder)


class Forked(subprocess.Popen):
    """`python -m MODULE ARGUMENTS` as a fork of the warm server; a Popen of text in all else.

    Its standard input is empty.
    """

    def __init__(self, warm: Path, module: str, arguments: Sequence[str], **options: Any) -> None:
        self._warm = warm
        super().__init__([module, *arguments], text=True, **options)

    def _execute_child(self, *given: Any) -> None:
        told = _SIGNATURE.bind(self, *given).arguments
        module, *arguments = told["args"]
        request = {
            "module": module,
            "arguments": arguments,
            "folder": os.fspath(told["cwd"] or Path.cwd()),
            "env": dict(os.environ if told["env"] is None else told["env"]),
            "is_leader": told["start_new_session"],
        }
        streams = [told["c2pwrite"], told["errwrite"]]
        descriptors = [own if one == -1 else one for own, one in enumerate(streams, start=1)]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self._warm))
            socket.send_fds(client, [b"\n"], descriptors)
            client.sendall(json.dumps(request).encode() + b"\n")
            self._answers = client.dup()
        self.pid = self._answer()
        self._child_created = True
        self._close_pipe_fds(  # type: ignore[attr-defined]
            *(told[one] for one in ("p2cread", "p2cwrite", "c2pread", "c2pwrite")),
            *(told[one] for one in ("errread", "errwrite")),
        )

    def _answer(self) -> int:
        (number,) = struct.unpack("i", self._answers.recv(4, socket.MSG_WAITALL))
        return int(number)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG and not select.select([self._answers], [], [], 0)[0]:
            return 0, 0
        with self._answers:
            return self.pid, self._answer()

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and hasattr(self, "pid"):
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


@pytest.fixture(scope="session")
def fork(warm: Path) -> Callable[..., subprocess.Popen[str]]:
    """`fork(module, arguments, **options of a Popen)` is `python -m`, and starts at once."""
    return functools.partial(Forked, warm)


@dataclass(frozen=True)
class RunningSimulator:
    """A simulator that runs; `url` is the base URL for a provider."""

    url: str
    process: subprocess.Popen[str]

    def stats(self) -> dict[str, Any]:
        """What it counted: accepted, refused, duplicates, peak in flight."""
        root = self.url.split("/v1")[0]
        with urllib.request.urlopen(f"{root}/stats", timeout=5) as answer:
            stats: dict[str, Any] = json.load(answer)
        return stats

    def stop(self) -> None:
        """Ends it: from now on nobody answers."""
        self.process.terminate()
        self.process.communicate(timeout=10)


@pytest.fixture
def simulator(fork: Callable[..., subprocess.Popen[str]]) -> Iterator[Callable[..., Any]]:
    """`simulator(latency_ms=20, ...)` starts the real simulator with these options."""
    with ExitStack() as stack:

        def start(**options: Any) -> RunningSimulator:
            arguments = ("--options", json.dumps(options))
            process = fork("batchq.simulator", arguments, stdout=subprocess.PIPE)
            running = RunningSimulator(process.stdout.readline().strip(), process)  # type: ignore[union-attr]
            stack.callback(running.stop)
            assert running.url.startswith("http"), "the simulator did not start"
            return running

        yield start


@dataclass
class ObjectStore:
    """A real S3 server over HTTP; `requests` are those it got, such as `PUT /bucket/key?query`.

    Where `refuse` names an error for a request, that one fails. Where `lose` holds for one, it is
    done, and its answer is lost.
    """

    url: str
    bucket: str
    requests: list[str] = field(default_factory=list)
    refuse: Callable[[str], str] = lambda _: ""
    lose: Callable[[str], bool] = lambda _: False

    def env(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def files(self) -> Any:
        """An fsspec file system, to look what is there."""
        import fsspec

        return fsspec.filesystem("s3", use_listings_cache=False)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[ObjectStore]:
    """One S3 server for all tests of this process."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: Any) -> None:
            pass

    real = DomainDispatcherApplication(create_backend_app)
    store = ObjectStore("", "")
    lock = threading.Lock()  # what moto keeps is not made for requests at once

    def application(environ: Any, start_response: Any) -> Any:
        query = f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else ""
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{query}"
        store.requests.append(request)
        code, is_lost = store.refuse(request), store.lose(request)
        if not code:
            with lock:
                answer = list(real(environ, lambda *_: None if is_lost else start_response(*_)))
            if not is_lost:
                return answer
            code = "InternalError"
        else:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status = 403 if code in ("AccessDenied", "InvalidAccessKeyId") else 500
        start_response(f"{status} {code}", [("Content-Type", "application/xml")])
        if request.startswith("HEAD "):  # an answer to it has no body
            return []
        return [f"<Error><Code>{code}</Code><Message>no {code}</Message></Error>".encode()]

    server = make_server("127.0.0.1", 0, application, request_handler=Quiet, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    store.url = f"http://127.0.0.1:{server.server_port}"
    yield store
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def object_store(s3_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """An S3 server with an empty bucket, and its address and keys in the environment."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    for name, value in s3_server.env().items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex}"
    s3_server.bucket = f"s3://{name}"
    s3_server.files().mkdir(name)
    s3_server.requests.clear()
    yield s3_server
    s3_server.refuse, s3_server.lose = lambda _: "", lambda _: False
    s3_server.files().rm(name, recursive=True)


class Project:
    """A user's folder, and the real command line in it as a process."""

    def __init__(
        self, folder: Path, stack: ExitStack, fork: Callable[..., subprocess.Popen[str]]
    ) -> None:
        self.folder = folder
        self._stack = stack
        self._fork = fork

    def write(self, name: str, content: Any) -> Path:
        """Writes a file: text as it is, anything else as JSON."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def read(self, name: str) -> Any:
        """Reads a JSON file."""
        return json.loads((self.folder / name).read_bytes())

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Runs `batchq` with these arguments to its end."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            place = {"cwd": self.folder, "env": self._env(env)}
            process = self._fork("batchq", arguments, stdout=out, stderr=err, **place)
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                _end(process)
                code = None
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read())
        if code is None:
            told = "\n".join(texts)
            pytest.fail(f"batchq {' '.join(arguments)} took over {timeout} s\n{told}")
        return subprocess.CompletedProcess(arguments, code, *texts)

    def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, is_cold: bool = False
    ) -> subprocess.Popen[str]:
        """Starts `batchq` with these arguments; it is ended with the test.

        A cold one imports all that it needs itself.
        """
        options: dict[str, Any] = {
            "cwd": self.folder,
            "env": self._env(env),
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        if is_cold:
            command = [sys.executable, "-m", "batchq", *arguments]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True, **options)
        else:
            process = self._fork("batchq", arguments, **options)
        self._stack.callback(_end, process)
        return process

    def _env(self, env: Mapping[str, str] | None) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("BATCHQ_")}
        return {**clean, "CI": "", "TERM": "dumb", **(env or {})}


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.fixture
def project(tmp_path: Path, fork: Callable[..., subprocess.Popen[str]]) -> Iterator[Project]:
    """An empty folder, and the command line in it."""
    folder = tmp_path / "project"
    folder.mkdir()
    with ExitStack() as stack:
        yield Project(folder, stack, fork)


def _marked(mark: str, folder: Path | None) -> list[psutil.Process]:
    """The processes of a test: they have its mark, or are forks that work in its folder."""
    found = []
    for process in psutil.process_iter():
        try:
            is_marked = process.environ().get(LEAK_MARK) == mark
            is_there = folder is not None and Path(process.cwd()).is_relative_to(folder)
            if process.pid != os.getpid() and (is_marked or is_there):
                found.append(process)
        except psutil.Error:  # ended, or not ours to look at
            continue
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(autouse=True)
def no_process_is_left(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Fails a test of real processes that leaves one behind, and ends it."""
    if not {"integration", "acceptance", "chaos"} & set(request.path.parts):
        yield
        return
    mark = uuid.uuid4().hex
    monkeypatch.setenv(LEAK_MARK, mark)  # every descendant inherits it
    folder = None
    if "tmp_path" in request.fixturenames:
        folder = request.getfixturevalue("tmp_path")

    yield

    deadline = time.monotonic() + 5.0
    while (left := _marked(mark, folder)) and time.monotonic() < deadline:
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
