"""The embedded stack, as its owner sees it: Redis, coordinator and workers under `.batchq/`."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from batchq.embedded.leftovers import hold_lock, stop_leftovers
from batchq.embedded.parts import Gone, Part, Rank, encode_part, worker_part
from batchq.embedded.server import (
    START_DEADLINE_S,
    RedisFiles,
    last_lines,
    prepare_redis,
    remove_short_folder,
)
from batchq.errors import QueueError

if TYPE_CHECKING:
    from batchq.settings import Settings

RUNS_FOLDER = "runs"
RUN_FILE = "run"
BROKER_FILE = "broker"
SCRATCH_FILE = "scratch"
_SCRATCH_PREFIX = "batchq-"
KEEP_FOLDERS = 20
STOP_GRACE_S = 10.0
# Above the graces of the supervisor's own, after which it is killed itself.
_SUPERVISOR_SLACK_S = 10.0


class Stack:
    """A private Redis and the processes that work from it; made by `start_stack`.

    With a broker in its settings it has no Redis of its own, and is there for simulators alone.
    """

    def __init__(
        self, folder: Path, lock: IO[bytes], settings: Settings, *, keeps_password: bool = False
    ) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._gone: list[Gone] = []
        self._buffer = b""
        self._stopped = False
        with (self.logs / "supervisor.log").open("ab") as log:
            self._supervisor = subprocess.Popen(  # noqa: S603 (our own argv, no shell)
                [
                    *(sys.executable, "-P", "-m", "batchq.embedded.supervisor"),
                    *(str(folder), str(lock.fileno())),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for us; we tell it what to do
                pass_fds=[lock.fileno()],
            )
        self.settings = settings
        self._redis: RedisFiles | None = None
        self._scratch: Path | None = None
        if not settings.broker_url:
            self._launch_redis(keeps_password=keeps_password)
        self.env = {
            "BATCHQ_BROKER_URL": self.broker_url,
            "BATCHQ_HOME": str(settings.home.absolute()),
            "BATCHQ_CATALOG_URL": settings.effective_catalog_url,
            "BATCHQ_CACHE_URL": self.settings.cache_url,
            "BATCHQ_SIGNING_KEY": settings.signing_key,
            "BATCHQ_METRICS_PORT": "0",  # it would be the same one for all
        }

    def _launch_redis(self, *, keeps_password: bool) -> None:
        self._redis = redis = prepare_redis(
            self.folder / "redis", self.settings.redis_server, keeps_password=keeps_password
        )
        if redis.socket.parent != redis.folder:
            self._say({"remove": str(redis.socket.parent)})
        # Answers outlive this Redis, so they are not kept in it.
        changes = {"broker_url": redis.url, "cache_url": self.settings.local_cache_url}
        self.settings = self.settings.model_copy(update=changes)
        self.launch(Part("redis", redis.argv, str(redis.log), Rank.BROKER))
        self._say({"warm_up": True})  # a stack with a Redis of its own has workers

    @property
    def is_private(self) -> bool:
        """Whether its Redis is its own, so that nobody else can work on it."""
        return self._redis is not None

    @property
    def broker_url(self) -> str:
        """The Redis that all parts use, as Celery reads it."""
        return self.settings.broker_url

    def launch(self, part: Part) -> None:
        """Starts a process; the supervisor restarts it if it dies and stops it at the end."""
        command = encode_part(part)
        self._write(command)

    def launch_worker(
        self,
        name: str,
        queue: str,
        pool: str,
        slots: int,
        env: Mapping[str, str] | None = None,
        *,
        is_watched: bool = False,
    ) -> None:
        """Starts a Celery worker of one queue."""
        level = self.settings.log_level
        own = {"PYTHONPATH": _python_path(), "TMPDIR": str(self._scratch_folder())}
        whole = {**self.env, **own, **(env or {})}
        self.launch(
            worker_part(
                name,
                queue,
                pool,
                slots,
                logs=self.logs,
                env=whole,
                level=level,
                is_watched=is_watched,
            )
        )

    def _scratch_folder(self) -> Path:
        """Where workers keep temporary files, which they may not live to remove.

        Not in our own folder: sockets are made in it, and their paths must be short.
        """
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH_PREFIX))
            (self.folder / SCRATCH_FILE).write_text(str(self._scratch), encoding="utf-8")
            self._say({"remove": str(self._scratch)})
        return self._scratch

    def launch_simulator(self, name: str, options: Mapping[str, Any]) -> Path:
        """Starts a simulated provider; `read_url` of the path it returns gives its base URL."""
        log = self.logs / f"simulator-{name}.log"
        log.unlink(missing_ok=True)  # before a resume it names a port that nobody listens on
        argv = ("--port", "0", "--options", json.dumps(dict(options)))
        # Restarted it would have another port, which nobody knows.
        part = Part(
            f"simulator-{name}",
            argv,
            str(log),
            Rank.SERVER,
            self.env,
            restart=False,
            module="batchq.simulator",
        )
        self.launch(part)
        return log

    def read_url(self, log: Path, deadline_s: float = 20.0) -> str:
        """Waits for the base URL that a simulator prints on its first line."""
        deadline = time.monotonic() + deadline_s
        while time.monotonic() < deadline:
            self.check()
            text = log.read_text(encoding="utf-8") if log.exists() else ""
            for line in text.splitlines(keepends=True):
                if line.startswith("http") and line.endswith("\n"):
                    return line.strip()
            time.sleep(0.02)
        raise QueueError(f"The simulator did not start. It said:\n{last_lines(log)}")

    def wait_for_redis(self) -> None:
        """Returns when Redis answers; raises QueueError with its last words if it does not."""
        redis = self._redis
        deadline = time.monotonic() + START_DEADLINE_S
        while redis is not None and not redis.is_ready():
            self.check()
            if time.monotonic() > deadline:
                words = last_lines(redis.log)
                raise QueueError(
                    f"The embedded Redis answers nothing after {START_DEADLINE_S:g} s. "
                    f"It said:\n{words}"
                )
            time.sleep(0.01)

    def check(self, *, spared: str = "") -> None:
        """Raises QueueError, with its last log lines, if a part died and is not restarted.

        Not for the part that is `spared`.
        """
        for event in self._events():
            if "gone" in event:
                self._gone.append(Gone(**event["gone"]))
        for gone in self._gone:
            if gone.name == spared:
                continue
            raise QueueError(
                f"The embedded stack is broken: {gone}. It said:\n"
                f"{last_lines(Path(gone.log))}\nIts log: {gone.log}"
            )
        if self._supervisor.poll() is not None and not self._stopped:
            words = last_lines(self.logs / "supervisor.log")
            raise QueueError(f"The embedded stack's supervisor ended. It said:\n{words}")

    def serve_run(self, run: str) -> None:
        """Writes down which run this stack works on, so that others find it.

        A resume finds its data by it, and `watch` in another terminal its Redis.
        """
        if self._redis is not None:
            self._redis.write_url(self.folder / BROKER_FILE)
        (self.folder / RUN_FILE).write_text(run, encoding="utf-8")

    def stop(self, grace_s: float = STOP_GRACE_S, *, keep_data: bool = True) -> None:
        """Ends all processes, workers first; SIGKILL for those that take longer than the grace.

        A KeyboardInterrupt while it waits ends the grace and is raised again afterwards.
        """
        if self._stopped:
            return
        self._stopped = True
        interrupt: KeyboardInterrupt | None = None
        self._say({"stop": grace_s})
        try:
            self._wait(2 * grace_s + _SUPERVISOR_SLACK_S)
        except KeyboardInterrupt as pressed:
            interrupt = pressed
            self._say({"stop": 0})
            self._wait(_SUPERVISOR_SLACK_S)
        _close(self._supervisor)
        (self.folder / BROKER_FILE).unlink(missing_ok=True)
        if not keep_data:
            shutil.rmtree(self.folder / "redis", ignore_errors=True)
        if not (self.folder / RUN_FILE).exists():
            shutil.rmtree(self.folder, ignore_errors=True)  # it never worked for a run
        if interrupt is not None:
            raise interrupt

    def _wait(self, seconds: float) -> None:
        try:
            self._supervisor.wait(seconds)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()  # the kernel ends its children with it, on Linux
            self._supervisor.wait()
            if lock := hold_lock(self.folder):
                stop_leftovers(self.folder)
                lock.close()

    def _say(self, command: dict[str, Any]) -> None:
        self._write(json.dumps(command).encode() + b"\n")

    def _write(self, command: bytes) -> None:
        assert self._supervisor.stdin is not None
        try:
            self._supervisor.stdin.write(command)
            self._supervisor.stdin.flush()
        except BrokenPipeError:
            if not self._stopped:
                self.check()

    def _events(self) -> Iterator[dict[str, Any]]:
        assert self._supervisor.stdout is not None
        descriptor = self._supervisor.stdout.fileno()
        os.set_blocking(descriptor, False)
        while True:
            try:
                data = os.read(descriptor, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            yield json.loads(line)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                continue


def _python_path() -> str:
    """The folder where we were started first: tasks of the user's project are found there."""
    return os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH", ""))))


def find_folder(home: Path, run: str) -> Path | None:
    """The folder of the stack that last served a run, with its logs."""
    for mark in (home.absolute() / RUNS_FOLDER).glob(f"*/{RUN_FILE}"):
        if mark.read_text(encoding="utf-8") == run:
            return mark.parent
    return None


def live_broker_url(home: Path, run: str) -> str | None:
    """The private Redis of the stack that serves a run now; None if none does."""
    folder = find_folder(home, run)
    return None if folder is None else _broker_of(folder)


def live_brokers(home: Path) -> dict[str, str]:
    """The private Redis of each run that a stack serves now."""
    marks = sorted((home.absolute() / RUNS_FOLDER).glob(f"*/{RUN_FILE}"))
    found = {mark.read_text(encoding="utf-8"): _broker_of(mark.parent) for mark in marks}
    return {run: url for run, url in found.items() if url}


def _broker_of(folder: Path) -> str | None:
    lock = hold_lock(folder)
    if lock is not None:
        lock.close()
        return None
    try:
        return (folder / BROKER_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def forget_data(home: Path, run: str) -> None:
    """Removes what the private Redis of a run kept for a resume; the logs stay."""
    if folder := find_folder(home, run):
        shutil.rmtree(folder / "redis", ignore_errors=True)


def _stack_folder(home: Path, run: str) -> Path:
    found = find_folder(home, run) if run else None
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return found or home.absolute() / RUNS_FOLDER / name


def clean_up(home: Path) -> list[str]:
    """Stops what dead stacks left running and removes the oldest folders of ended runs.

    Returns the names of the processes it stopped. Redis data of runs that may be resumed stays.
    """
    stopped: list[str] = []
    done: list[Path] = []
    for folder in sorted((home.absolute() / RUNS_FOLDER).glob("*/")):
        lock = hold_lock(folder)
        if lock is None:
            continue  # alive
        with lock:
            stopped += [record.name for record in stop_leftovers(folder)]
            remove_short_folder(folder / "redis")
            _remove_scratch(folder)
        if not (folder / "redis").exists():
            done.append(folder)
    for folder in done[:-KEEP_FOLDERS]:
        shutil.rmtree(folder, ignore_errors=True)
    return stopped


def _remove_scratch(folder: Path) -> None:
    """Removes the temporary files of a stack whose supervisor did not live to do so."""
    note = folder / SCRATCH_FILE
    if note.exists():
        scratch = Path(note.read_text(encoding="utf-8"))
        if scratch.name.startswith(_SCRATCH_PREFIX):
            shutil.rmtree(scratch, ignore_errors=True)
        note.unlink()


@contextmanager
def start_stack(
    settings: Settings, run: str = "", *, keeps_password: bool = False
) -> Iterator[Stack]:
    """Starts a supervisor and a private Redis at once; launch the other parts on what it yields.

    With `run`, the data of the stack that served this run before is there again. Everything is
    stopped when the block ends, however it ends, and also when this process is killed.

    Raises:
        QueueError: there is no Redis binary, or another process works on this run.
    """
    clean_up(settings.home)
    (settings.home.absolute() / RUNS_FOLDER).mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = _stack_folder(settings.home, run)
    lock = hold_lock(folder)
    if lock is None:
        raise QueueError(f"Another batchq works on {run} now: `batchq watch` cannot join it.")
    with lock:  # and, from here to its end, the supervisor
        stack = Stack(folder, lock, settings, keeps_password=keeps_password)
        try:
            yield stack
        finally:
            stack.stop()
