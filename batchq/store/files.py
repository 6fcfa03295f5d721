"""Files of a folder on any file system, each whole or not there.

Paths are relative to the folder and use `/`. On a disk a file is written under a temporary name in
`state/tmp` and renamed; on an object store it is there once its upload is complete.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from typing import IO, Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from batchq.errors import StoreError
from batchq.store.faults import code_of, explained

T = TypeVar("T")

TEMP_FOLDER = "state/tmp"
STALE_AFTER_S = 3600.0
"""A temporary file older than this belongs to nobody: writing one takes seconds."""

_AT_ONCE = 32
"""Requests to an object store in flight: each takes 10-50 ms, nearly all of it waiting."""

_READ_AHEAD = 8
"""Files that are fetched before they are asked for; a record of 500 items has about 1 MB."""

_BUFFER_BYTES = 1 << 20
_BLOCK_BYTES = 8 << 20
_CREATE_TRIES = 5


def open_files(url: str) -> Files:
    """Opens a folder, which need not exist yet, by a path or an fsspec URL."""
    from batchq.store.disk import DiskFiles  # it is built on this module

    if "://" in url and any(sign in url for sign in "*?["):
        raise StoreError(f"{url}: a URL with *, ? or [ would be taken for a pattern: rename it")
    try:
        with explained(url):
            fs, root = fsspec.url_to_fs(url, use_listings_cache=False, **_options(url))
    except ImportError as error:
        protocol = url.partition("://")[0]
        extra = f"pip install 'batchq[{protocol}]'" if protocol == "s3" else str(error)
        raise StoreError(f"{url}: the package for {protocol}:// is missing: {extra}") from error
    except ValueError as error:  # an unknown protocol
        raise StoreError(f"{url}: {error}") from error
    if isinstance(fs, LocalFileSystem):
        return DiskFiles(fs, root)
    return Files(fs, fs.unstrip_protocol(root))


def _options(url: str) -> dict[str, Any]:
    """How a store's client is set up; what people set for fsspec comes first."""
    if not url.startswith("s3://"):
        return {}
    configured = fsspec.config.conf.get("s3", {})
    client = {"max_pool_connections": _AT_ONCE, "connect_timeout": 10}
    options = {
        "config_kwargs": client | configured.get("config_kwargs", {}),
        # One part of an upload at a time keeps 50 MB in memory, not 500, and a read is one
        # request that does not ask for the size first.
        "max_concurrency": 1,
    }
    return options | {key: value for key, value in configured.items() if key != "config_kwargs"}


class Files:
    """The files of a folder on an object store, or on anything else that fsspec knows."""

    def __init__(self, fs: Any, root: str) -> None:
        self.fs = fs
        self.root = root.rstrip("/") or root

    def at(self, path: str) -> Files:
        """The files of a folder within this one."""
        return type(self)(self.fs, self.full(path))

    def sealed(self) -> Files:
        """The same folder, of which no link is followed in reading either; here there are none."""
        return self

    def full(self, path: str) -> str:
        """The path as the file system knows it, and as errors name it."""
        return f"{self.root}/{path}" if path else self.root

    @property
    def url(self) -> str:
        """What `open_files` opens this folder by; a plain path on a disk."""
        return self.root

    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder."""
        with explained(self.full(path)):
            return bool(self.fs.exists(self.full(path)))

    def existing(self, paths: Iterable[str]) -> list[str]:
        """Those of many paths that exist, in their order."""
        return [path for path, found in self._at_once(self.exists, paths) if found]

    def names(self, path: str = "") -> list[str]:
        """The names in a folder, sorted, hidden ones left out; none if there is no folder."""
        with explained(self.full(path)):
            try:
                found = self.fs.ls(self.full(path), detail=False)
            except FileNotFoundError as error:
                if code_of(error) == "NoSuchBucket":
                    raise
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

    def size(self, path: str) -> int | None:
        """The length of a file in bytes; None if it is not there."""
        with explained(self.full(path)), suppress(FileNotFoundError):
            return int(self.fs.size(self.full(path)))
        return None

    def walk(self) -> Iterator[str]:
        """The paths of all files, those in folders too, in order; links are left out."""
        with explained(self.root):
            found = self.fs.find(self.root)
        start = len(self.fs._strip_protocol(self.root)) + 1
        yield from (path[start:] for path in sorted(found))

    def total_size(self) -> int:
        """The length of all files in the folder together, in bytes; 0 if there is no folder."""
        with explained(self.root), suppress(FileNotFoundError):
            return int(self.fs.du(self.root))
        return 0

    @contextmanager
    def reader(self, path: str) -> Iterator[IO[bytes]]:
        """Opens a file for reading from its start."""
        with explained(self.full(path)), self._opened(path) as file:
            # fsspec's own lines read the rest of their block again for each one
            yield io.BufferedReader(file, _BUFFER_BYTES)

    def _opened(self, path: str) -> Any:
        return self.fs.open(self.full(path), "rb", block_size=_BLOCK_BYTES)

    def readers(self, paths: Iterable[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """Opens small files one after another; here the next ones are fetched meanwhile."""
        for path, data in self._at_once(self.read, paths, _READ_AHEAD):
            yield path, io.BytesIO(data)

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
            mode = "create" if only_new else "overwrite"
            self._create(lambda: self.fs.put_file(file.name, self.full(path), mode=mode))

    def write(self, path: str, data: bytes, *, durable: bool = False) -> None:  # noqa: ARG002
        """Writes a whole file, replacing one that is there."""
        with explained(self.full(path)):
            self.fs.pipe_file(self.full(path), data)

    def write_many(self, files: Mapping[str, bytes]) -> None:
        """Writes whole files that may be lost with the power; here many at once."""
        with explained(self.root):
            self.fs.pipe({self.full(path): data for path, data in files.items()})

    def create(self, path: str, data: bytes) -> bool:
        """Writes a durable file unless it is there; says whether it was this call.

        A store that wrote the file and then failed to say so is asked again: the answer is False.
        """
        with explained(self.full(path)):
            return self._create(lambda: self.fs.pipe_file(self.full(path), data, mode="create"))

    def _create(self, send: Callable[[], object]) -> bool:
        """Sends a file that may have to be new; False if one is there."""
        for last in (*[False] * (_CREATE_TRIES - 1), True):
            try:
                send()
            except FileExistsError:
                return False
            except OSError as error:
                if code_of(error) in ("PreconditionFailed", "412"):
                    return False
                # Two were sent at the same moment; the store wants one of them again.
                if last or code_of(error) not in ("ConditionalRequestConflict", "409"):
                    raise
            else:
                return True
        raise AssertionError("the last try returns or raises")

    def append(self, folder: str, line: bytes) -> None:
        """Adds a line to the log in a folder; here, where nothing can be added to, a file of it."""
        self.write(f"{folder}/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl", line)

    def remove(self, path: str) -> None:
        """Removes a file, if it is there."""
        with explained(self.full(path)), suppress(FileNotFoundError):
            self.fs.rm_file(self.full(path))

    def remove_all(self) -> None:
        """Removes the folder with all that is in it, if it is there."""
        with explained(self.root), suppress(FileNotFoundError):
            self.fs.rm(self.root, recursive=True)

    def claim_folder(self, path: str) -> bool:
        """Makes a folder unless it is there; says whether it was this call."""
        claim, ours = f"{path}/state/claim", f"claimed {uuid.uuid4().hex}\n".encode()
        # A store may fail after it took the claim: then the second try meets our own.
        return self.create(claim, ours) or self.read(claim) == ours

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
        del older_than_s  # an upload that broke off is not to be seen
        return 0

    def _at_once(
        self, function: Callable[[str], T], paths: Iterable[str], ahead: int = _AT_ONCE
    ) -> Iterator[tuple[str, T]]:
        """Calls a function for each path, some ahead of the one that is wanted, in their order."""
        left = iter(paths)
        with ThreadPoolExecutor(ahead) as pool:
            waiting = [(path, pool.submit(function, path)) for path in islice(left, ahead)]
            while waiting:
                path, result = waiting.pop(0)
                found = result.result()
                waiting += [(path, pool.submit(function, path)) for path in islice(left, 1)]
                yield path, found
