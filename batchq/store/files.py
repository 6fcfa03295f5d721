"""Files of a folder on any file system, each whole or not there.

Paths are relative to the folder and use `/`. On a disk a file is written under a temporary name in
`state/tmp` and renamed; on an object store it is sent in one request once it is complete.
"""

from __future__ import annotations

import errno
import json
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from batchq.errors import StoreError

TEMP_FOLDER = "state/tmp"
STALE_AFTER_S = 3600.0
"""A temporary file older than this belongs to nobody: writing one takes seconds."""

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space, then go on with `batchq resume`",
    errno.EDQUOT: "the disk quota is used up: free some space, then go on with `batchq resume`",
    errno.EACCES: "it may not be written: change its permissions or choose another `output_dir`",
    errno.EPERM: "it may not be written: change its permissions or choose another `output_dir`",
    errno.EROFS: "its file system is read-only: choose another `output_dir`",
    errno.ENOTDIR: "a file or a link stands where a folder is needed: remove it or choose "
    "another `output_dir`",
    errno.EEXIST: "a file or a link stands where a folder is needed: remove it or choose "
    "another `output_dir`",
    errno.ELOOP: "it is a symbolic link, and links in a run folder are not followed: remove it",
    errno.EISDIR: "a folder stands where a file is needed: remove it",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter `output_dir`",
}


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Turns what a file system raises into a StoreError that names the place and a way out."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "check that `output_dir` exists and can be written")
        reason = error.strerror or str(error)
        raise StoreError(f"{place}: {reason} ({advice})") from error


def open_files(url: str) -> Files:
    """Opens a folder, which need not exist yet, by a path or an fsspec URL."""
    from batchq.store.disk import DiskFiles  # it is built on this module

    try:
        fs, root = fsspec.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:  # no package for it, an unknown protocol
        raise StoreError(f"output_dir {url}: {error}") from error
    return DiskFiles(fs, root) if isinstance(fs, LocalFileSystem) else Files(fs, root)


class Files:
    """The files of a folder on an object store, or on anything else that fsspec knows."""

    def __init__(self, fs: Any, root: str) -> None:
        self.fs = fs
        self.root = root.rstrip("/") or root

    def at(self, path: str) -> Files:
        """The files of a folder within this one."""
        return type(self)(self.fs, self.full(path))

    def full(self, path: str) -> str:
        """The path as the file system knows it."""
        return f"{self.root}/{path}" if path else self.root

    @property
    def url(self) -> str:
        """What `open_files` opens this folder by; a plain path on a disk."""
        return str(self.fs.unstrip_protocol(self.root))

    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder."""
        with explained(self.full(path)):
            return bool(self.fs.exists(self.full(path)))

    def names(self, path: str = "") -> list[str]:
        """The names in a folder, sorted, hidden ones left out; none if there is no folder."""
        with explained(self.full(path)):
            try:
                found = self.fs.ls(self.full(path), detail=False)
            except FileNotFoundError:
                return []
        names = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in found)
        return sorted(name for name in names if not name.startswith("."))

    def read(self, path: str) -> bytes:
        """Reads a whole file."""
        with explained(self.full(path)):
            return bytes(self.fs.cat_file(self.full(path)))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Reads the bytes from `start` up to `end`; fewer where the file is shorter."""
        with explained(self.full(path)):
            return bytes(self.fs.cat_file(self.full(path), start=start, end=end))

    def size(self, path: str) -> int:
        """The length of a file in bytes."""
        with explained(self.full(path)):
            return int(self.fs.size(self.full(path)))

    @contextmanager
    def reader(self, path: str) -> Iterator[IO[bytes]]:
        """Opens a file for reading from its start."""
        with explained(self.full(path)), self.fs.open(self.full(path), "rb") as file:
            yield file

    @contextmanager
    def writer(
        self,
        path: str,
        *,
        durable: bool = False,  # noqa: ARG002 (what an object store took is durable)
        only_new: bool = False,
    ) -> Iterator[IO[bytes]]:
        """Opens a file for writing; it appears when the block ends without an error.

        With `only_new` a file that is there stays as it is. `durable` files are on the disk when
        this returns; the others may be lost with the power, but never with the process.
        """
        with explained(self.full(path)), tempfile.NamedTemporaryFile() as file:
            yield file
            file.flush()
            if not (only_new and self.fs.exists(self.full(path))):
                self.fs.put_file(file.name, self.full(path))

    def write(self, path: str, data: bytes, *, durable: bool = False) -> None:
        """Writes a whole file, replacing one that is there."""
        with self.writer(path, durable=durable) as file:
            file.write(data)

    def create(self, path: str, data: bytes) -> bool:
        """Writes a durable file unless it is there; says whether it was this call."""
        with explained(self.full(path)):
            try:
                self.fs.pipe_file(self.full(path), data, mode="create")
            except FileExistsError:
                return False
        return True

    def append(self, folder: str, line: bytes) -> None:
        """Adds a line to the log in a folder; here, where nothing can be added to, a file of it."""
        stamp = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        self.create(f"{folder}/{stamp}.jsonl", line)

    def remove(self, path: str) -> None:
        """Removes a file or a folder with all that is in it, if it is there."""
        with explained(self.full(path)), suppress(FileNotFoundError):
            self.fs.rm(self.full(path), recursive=True)

    def claim_folder(self, path: str) -> bool:
        """Makes a folder unless it is there; says whether it was this call."""
        return self.create(f"{path}/state/claim", b"claimed\n")

    def point(self, name: str, target: str) -> None:
        """Makes `name` point at another name in this folder; here by a file that says so."""
        self.write(f"{name}.json", json.dumps({"version": target}).encode() + b"\n", durable=True)

    def pointed(self, name: str) -> str | None:
        """What `name` points at; None if there is no such pointer, or no sense in it."""
        if not self.exists(f"{name}.json"):
            return None
        try:
            return str(json.loads(self.read(f"{name}.json"))["version"])
        except (ValueError, KeyError, TypeError):
            return None

    def sweep(self, older_than_s: float = STALE_AFTER_S) -> int:
        """Removes temporary files of writers that died; returns how many. None here."""
        del older_than_s  # a request that broke off leaves nothing
        return 0
