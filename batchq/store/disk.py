"""Files of a folder on a disk: temporary name, then rename; no link is followed on the way."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from batchq.store.files import STALE_AFTER_S, TEMP_FOLDER, Files, explained

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class DiskFiles(Files):
    """The files of a folder on a disk. Links inside the folder are never followed in writing."""

    @property
    def url(self) -> str:
        """The absolute path of the folder."""
        return self.root

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
