"""Files of a folder on a disk: temporary name, then rename; no link is followed on the way."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from batchq.store.faults import explained
from batchq.store.files import STALE_AFTER_S, TEMP_FOLDER, Files

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class DiskFiles(Files):
    """The files of a folder on a disk. Links inside the folder are never followed in writing."""

    def __init__(self, fs: Any, root: str) -> None:
        self._open: dict[str, int] = {}
        super().__init__(fs, root)

    def sealed(self) -> Files:
        """The same folder, of which no link is followed in reading either."""
        from batchq.store.sealed import SealedFiles  # it is built on this module

        return SealedFiles(self.fs, self.root)

    def existing(self, paths: Iterable[str]) -> list[str]:
        """Those of many paths that exist, in their order."""
        return [path for path in paths if self.exists(path)]

    @contextmanager
    def reader(self, path: str) -> Iterator[IO[bytes]]:
        """Opens a file for reading from its start."""
        with explained(self.full(path)), Path(self.full(path)).open("rb") as file:
            yield file

    def readers(self, paths: Iterable[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """Opens files one after another."""
        for path in paths:
            with self.reader(path) as file:
                yield path, file

    def write_many(self, files: Mapping[str, bytes]) -> None:
        """Writes whole files that may be lost with the power."""
        for path, data in files.items():
            self.write(path, data)

    def write(self, path: str, data: bytes, *, durable: bool = False) -> None:
        """Writes a file whole.

        Item files are most of what a run writes, so this has a way of its own for a file that may
        be lost with the power: the folders above stay open from one write to the next.
        """
        parent, _, name = path.rpartition("/")
        top, _, below = parent.partition("/")
        if durable or "/" in below:
            with self.writer(path, durable=durable) as whole:
                whole.write(data)
            return
        temp = uuid.uuid4().hex
        with explained(self.full(path)):
            temp_fd, top_fd = self._kept_open(TEMP_FOLDER), self._kept_open(top)
            try:
                file = os.open(temp, _NEW, 0o666, dir_fd=temp_fd)
                try:
                    left = memoryview(data)
                    while left:
                        left = left[os.write(file, left) :]
                finally:
                    os.close(file)
                _place_below(temp, temp_fd, below, name, top_fd)
            except BaseException:
                with suppress(OSError):  # it was never made
                    os.unlink(temp, dir_fd=temp_fd)
                raise

    def _kept_open(self, path: str) -> int:
        if path not in self._open:
            with self._folder(path) as folder_fd:
                self._open[path] = os.dup(folder_fd)
        return self._open[path]

    def __del__(self) -> None:
        for folder_fd in self._open.values():
            os.close(folder_fd)

    def walk(self) -> Iterator[str]:
        """The paths of all files, those in folders too, in order; links are left out."""
        for folder, folders, files in os.walk(self.root):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(folder, name)  # noqa: PTH118 (a Path costs ten times as much)
                if os.path.isfile(path) and not os.path.islink(path):  # noqa: PTH113, PTH114
                    yield os.path.relpath(path, self.root)

    @contextmanager
    def writer(
        self, path: str, *, durable: bool = False, only_new: bool = False
    ) -> Iterator[IO[bytes]]:
        """Opens a temporary file for writing, which gets its name when the block ends well."""
        parent, _, name = path.rpartition("/")
        temp = uuid.uuid4().hex
        with (
            explained(self.full(path)),
            self._folder(TEMP_FOLDER) as temp_fd,
            self._folder(parent) as folder_fd,
        ):
            try:
                with open(os.open(temp, _NEW, 0o666, dir_fd=temp_fd), "wb") as file:  # noqa: PTH123
                    yield file
                    file.flush()
                    if durable:
                        os.fsync(file.fileno())
                place = _place_new if only_new else _place
                place(temp, temp_fd, name, folder_fd)
            except BaseException:
                with suppress(OSError):  # it was never made
                    os.unlink(temp, dir_fd=temp_fd)
                raise
            if durable:
                os.fsync(folder_fd)

    def create(self, path: str, data: bytes) -> bool:
        """Writes a durable file unless it is there; says whether it was this call."""
        if self.exists(path):
            return False
        with self.writer(path, durable=True, only_new=True) as file:
            file.write(data)
            file.flush()
            ours = os.fstat(file.fileno()).st_ino
        with explained(self.full(path)):
            return Path(self.full(path)).lstat().st_ino == ours

    def append(self, folder: str, line: bytes) -> None:
        """Adds a line to `<folder>.jsonl`."""
        parent, _, name = folder.rpartition("/")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with explained(self.full(f"{folder}.jsonl")), self._folder(parent) as folder_fd:
            file = os.open(f"{name}.jsonl", flags, 0o666, dir_fd=folder_fd)
            try:
                os.write(file, line)  # one call, so that lines of two writers do not mix
            finally:
                os.close(file)

    def claim_folder(self, path: str) -> bool:
        """Makes a folder unless it is there; says whether it was this call."""
        with explained(self.full(path)):
            Path(self.root).mkdir(parents=True, exist_ok=True)
            try:
                Path(self.full(path)).mkdir()
            except FileExistsError:
                return False
        return True

    def sweep(self, older_than_s: float = STALE_AFTER_S) -> int:
        """Removes temporary files of writers that died; returns how many."""
        removed = 0
        for name in self.names(TEMP_FOLDER):
            path = Path(self.full(f"{TEMP_FOLDER}/{name}"))
            with suppress(FileNotFoundError):  # its writer has just ended
                if time.time() - path.lstat().st_mtime > older_than_s:
                    path.unlink()
                    removed += 1
        return removed

    def point(self, name: str, target: str) -> None:
        """Makes `name` a link to another name in this folder, replacing the link in one step."""
        # Named by its target: one that a crash left is as good as a new one.
        temp = Path(self.full(f".{name}-{target}"))
        with explained(self.full(name)):
            with suppress(FileExistsError):
                temp.symlink_to(target)
            with suppress(FileNotFoundError):  # another writer of the same target was quicker
                temp.replace(self.full(name))

    def pointed(self, name: str) -> str | None:
        """What the link points at; a pointer file, as object stores have it, is read too."""
        try:
            return str(Path(self.full(name)).readlink())
        except OSError:  # none, or no link
            return super().pointed(name)

    @contextmanager
    def _folder(self, path: str) -> Iterator[int]:
        """Opens a folder below the root, made if need be, without following a link on the way."""
        try:
            current = os.open(self.root, _FOLDER)
        except FileNotFoundError:
            Path(self.root).mkdir(parents=True, exist_ok=True)
            current = os.open(self.root, _FOLDER)
        try:
            for part in path.split("/") if path else ():
                below = _open_below(part, current)
                os.close(current)
                current = below
            yield current
        finally:
            os.close(current)


def _open_below(name: str, folder_fd: int) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder_fd)
    except FileNotFoundError:
        with suppress(FileExistsError):  # somebody else was quicker
            os.mkdir(name, dir_fd=folder_fd)
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder_fd)


def _place_below(temp: str, temp_fd: int, below: str, name: str, top_fd: int) -> None:
    """Gives a file its name in a folder below `top_fd`, or in that itself; follows no link."""
    if not below:
        _place(temp, temp_fd, name, top_fd)
        return
    try:
        os.mkdir(below, dir_fd=top_fd)
    except FileExistsError:
        folder_fd = os.open(below, _FOLDER | os.O_NOFOLLOW, dir_fd=top_fd)
        try:
            _place(temp, temp_fd, name, folder_fd)
        finally:
            os.close(folder_fd)
    else:  # ours, so no link
        _place(temp, temp_fd, f"{below}/{name}", top_fd)


def _place(temp: str, temp_fd: int, name: str, folder_fd: int) -> None:
    os.replace(temp, name, src_dir_fd=temp_fd, dst_dir_fd=folder_fd)


def _place_new(temp: str, temp_fd: int, name: str, folder_fd: int) -> None:
    """Gives a file its name unless that is taken: a link fails where a rename would replace."""
    try:
        os.link(temp, name, src_dir_fd=temp_fd, dst_dir_fd=folder_fd)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        if not _is_there(name, folder_fd):  # no links here (FAT, some network disks)
            _place(temp, temp_fd, name, folder_fd)
            return
    os.unlink(temp, dir_fd=temp_fd)


def _is_there(name: str, folder_fd: int) -> bool:
    try:
        os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
