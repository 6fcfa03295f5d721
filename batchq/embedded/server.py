"""A private Redis: a child process behind a unix socket that only its owner can reach."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from batchq.embedded.binary import find_redis_server
from batchq.embedded.lifeline import die_with_parent
from batchq.errors import QueueError

if TYPE_CHECKING:
    from batchq.settings import Settings  # pydantic takes time that the supervisor does not have

START_DEADLINE_S = 5.0
STOP_DEADLINE_S = 10.0
# The length of sun_path, less its closing zero.
_SOCKET_PATH_MAX = 107 if sys.platform.startswith("linux") else 103

_SHORT_PREFIX = "batchq-"
_SHORT_FOLDERS = ("/tmp", "/var/tmp")  # noqa: S108 (mkdtemp makes a private folder in it)

_CONFIG = """\
port 0
unixsocket "{socket}"
unixsocketperm 700
requirepass {password}
dir "{data}"
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
daemonize no
logfile ""
"""


@dataclass(frozen=True, slots=True)
class RedisFiles:
    """What a server needs on disk, ready to be started with `argv`.

    The password is in a file that only its owner can read, and so in no process list.
    """

    folder: Path
    socket: Path
    password: str = field(repr=False)
    argv: tuple[str, ...]

    @property
    def url(self) -> str:
        """The URL as Celery reads it."""
        return f"redis+socket://:{self.password}@{self.socket}"

    @property
    def log(self) -> Path:
        """Where the server's own messages go."""
        return self.folder / "redis.log"

    def is_ready(self) -> bool:
        """Whether a server answers on the socket, its data loaded."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(1.0)
                client.connect(str(self.socket))
                client.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                return b"+PONG" in _read_lines(client, 2)
        except OSError:
            return False

    def write_url(self, path: Path) -> None:
        """Writes the URL, with its password, into a file for the same user only."""
        _write_private(path, self.url)

    def remove_socket(self) -> None:
        """Removes the socket and, if it is ours alone, the folder made for it."""
        self.socket.unlink(missing_ok=True)
        if self.socket.parent != self.folder:
            shutil.rmtree(self.socket.parent, ignore_errors=True)


def _read_lines(client: socket.socket, count: int) -> bytes:
    data = b""
    while data.count(b"\n") < count:
        if not (part := client.recv(4096)):
            break
        data += part
    return data


def prepare_redis(folder: Path, setting: str = "", *, keeps_password: bool = False) -> RedisFiles:
    """Writes a server's configuration with a new password; its data in `folder` is kept.

    With `keeps_password` the one of the last time is taken: what it signed is still good.
    """
    binary = find_redis_server(setting)
    folder = folder.absolute()
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    config = folder / "redis.conf"
    before = _password_in(config) if keeps_password else ""
    password = before or secrets.token_hex(24)
    place = _socket_path(folder)
    place.unlink(missing_ok=True)
    _write_private(config, _CONFIG.format(socket=place, password=password, data=data))
    return RedisFiles(folder, place, password, (str(binary), str(config)))


def _password_in(config: Path) -> str:
    if not config.exists():
        return ""
    lines = config.read_text(encoding="utf-8").splitlines()
    return next((line.split()[1] for line in lines if line.startswith("requirepass ")), "")


def remove_short_folder(folder: Path) -> None:
    """Removes the folder made for the socket of a server that ended without doing so itself."""
    try:
        config = (folder / "redis.conf").read_text(encoding="utf-8")
    except OSError:
        return
    place = Path(config.partition('unixsocket "')[2].partition('"')[0]).parent
    if place != folder and place.name.startswith(_SHORT_PREFIX):
        shutil.rmtree(place, ignore_errors=True)


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)  # an old file would keep its own mode
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _socket_path(folder: Path) -> Path:
    """The folder's own place for a socket, or one in a short folder where that is too long."""
    path = folder / "redis.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
        return path
    for base in (tempfile.gettempdir(), *_SHORT_FOLDERS):
        longest = Path(base, f"{_SHORT_PREFIX}12345678", "redis.sock")  # as mkdtemp names it
        if len(os.fsencode(longest)) <= _SOCKET_PATH_MAX and os.access(base, os.W_OK):
            return Path(tempfile.mkdtemp(prefix=_SHORT_PREFIX, dir=base)) / "redis.sock"
    raise QueueError(
        f"The path of the embedded Redis's socket would be too long: {path} (at most "
        f"{_SOCKET_PATH_MAX} bytes). Set TMPDIR to a folder with a short path."
    )


class RedisServer:
    """A private Redis that runs; stop it, its data stays."""

    def __init__(self, files: RedisFiles) -> None:
        self._files = files
        with files.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (our own argv, no shell)
                files.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C on the terminal is not meant for it
                preexec_fn=die_with_parent(signal.SIGTERM),
            )

    @property
    def url(self) -> str:
        """The URL as Celery reads it."""
        return self._files.url

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def wait_until_ready(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Returns when it answers; else stops it and raises QueueError with its last words."""
        deadline = time.monotonic() + deadline_s
        while not self._files.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                code = self._process.poll()
                why = f"answers nothing after {deadline_s:g} s" if code is None else f"exit {code}"
                words = last_lines(self._files.log)
                self.stop()
                raise QueueError(f"The embedded Redis did not start ({why}). It said:\n{words}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends the server, its append-only file written; does nothing a second time."""
        self._process.terminate()
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._files.remove_socket()


def start_redis(folder: Path, settings: Settings) -> RedisServer:
    """Starts a server whose files are all in `folder`, and returns when it answers.

    Raises QueueError if there is no binary, or it does not come up.
    """
    server = RedisServer(prepare_redis(folder, settings.redis_server))
    server.wait_until_ready()
    return server


def last_lines(path: Path, count: int = 12) -> str:
    """The end of a log file, indented, for an error message."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return "\n".join(f"    {line}" for line in lines[-count:]) or "    (nothing)"
