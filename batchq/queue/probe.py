"""Asks every live worker and coordinator what it sees, for `batchq doctor`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchq.errors import BatchqError, QueueError
from batchq.plan import is_remote
from batchq.store.files import open_files

if TYPE_CHECKING:
    from batchq.settings import Settings

LOOK = "batchq_look"
SEEN = "ok"
PATIENCE_S = 3.0
_PREFIX = "batchq-doctor-"


@dataclass(frozen=True, slots=True)
class Sight:
    """What one process sees: by folder what is wrong with it, or SEEN, and keys it lacks.

    `lacks_run` tells of a coordinator whose own catalog does not have the run that it was asked of.
    """

    name: str
    folders: Mapping[str, str]
    missing: tuple[str, ...]
    lacks_run: bool = False


def token_file(token: str) -> str:
    """The file that the asker writes."""
    return f"{_PREFIX}{token}"


def answer_file(token: str, pid: int) -> str:
    """The file that a coordinator writes beside it."""
    return f"{_PREFIX}{token}-{pid}"


def ask(
    settings: Settings,
    folders: Sequence[str],
    variables: Sequence[str],
    *,
    expected: int,
    run: str = "",
) -> list[Sight]:
    """Asks all, and returns when so many have answered, or after PATIENCE_S.

    Folders that we cannot write to ourselves are left out. Raises QueueError if Redis is away.
    """
    from kombu.exceptions import OperationalError

    from batchq.queue.app import make_app

    token = secrets.token_hex(16)
    with _tokens(token, folders) as written:
        app = make_app(settings)
        arguments = {"token": token, "folders": written, "variables": list(variables), "run": run}
        try:
            replies = app.control.broadcast(
                LOOK, arguments=arguments, reply=True, timeout=PATIENCE_S, limit=expected
            )
        except OperationalError as error:
            raise QueueError(f"Redis did not answer: {error}") from error
        finally:
            app.close()
    told = [said for reply in replies or () for said in reply.values()]
    return [_sight(said) for said in told if "name" in said]


def _sight(said: Mapping[str, Any]) -> Sight:
    name, lacks_run = str(said["name"]), bool(said.get("lacks_run"))
    return Sight(name, dict(said["folders"]), tuple(said["missing"]), lacks_run)


@contextmanager
def _tokens(token: str, folders: Sequence[str]) -> Iterator[list[str]]:
    """Writes a token into each folder that can be written; removes it and its answers."""
    written = []
    for folder in folders:
        with suppress(BatchqError, OSError):
            write_token(folder, token_file(token), token)
            written.append(folder)
    try:
        yield written
    finally:
        for folder in written:
            with suppress(BatchqError, OSError):
                _remove_tokens(folder, token)


def write_token(folder: str, name: str, token: str) -> None:
    """Writes a new file into a folder that is there; raises StoreError or OSError."""
    if is_remote(folder):
        open_files(folder).write(name, token.encode())
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(Path(folder, name), flags, 0o644)
    with os.fdopen(descriptor, "w") as file:
        file.write(token)


def read_token(folder: str, name: str) -> str | None:
    """Reads such a file; None if there is none. Raises StoreError or OSError."""
    if is_remote(folder):
        files = open_files(folder)
        return files.read(name).decode() if files.exists(name) else None
    try:
        return Path(folder, name).read_text("utf-8")
    except FileNotFoundError:
        return None


def _remove_tokens(folder: str, token: str) -> None:
    if is_remote(folder):
        files = open_files(folder)
        for name in files.names():
            if name.startswith(token_file(token)):
                files.remove(name)
        return
    for path in Path(folder).glob(f"{token_file(token)}*"):
        path.unlink(missing_ok=True)
