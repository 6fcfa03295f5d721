"""Files of a run folder on a disk: no link inside it is followed, in writing or in reading.

A folder may come from elsewhere, unpacked or on a disk that others write to. A link in it that was
followed would show what is outside of it as an item's output, on a page that others may read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from batchq.store.disk import DiskFiles
from batchq.store.faults import explained

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW


class SealedFiles(DiskFiles):
    """The files of one run folder. The folder itself may be reached by links."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder; raises StoreError for a link."""
        return self._stat(path) is not None

    def size(self, path: str) -> int | None:
        """The length of a file in bytes; None if it is not there."""
        found = self._stat(path)
        return None if found is None else found.st_size

    def names(self, path: str = "") -> list[str]:
        """The names in a folder, sorted, hidden ones left out; none if there is no folder."""
        with (
            explained(self.full(path)),
            suppress(FileNotFoundError),
            self._opened_below(path, _FOLDER) as folder_fd,
        ):
            found = os.listdir(folder_fd)  # noqa: PTH208 (a descriptor is no Path)
            return sorted(name for name in found if not name.startswith("."))
        return []

    def read(self, path: str) -> bytes:
        """Reads a whole file."""
        with self.reader(path) as file:
            return file.read()

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Reads the bytes from `start` up to `end`; fewer where the file is shorter."""
        with self.reader(path) as file:
            file.seek(start)
            return file.read(max(0, end - start))

    @contextmanager
    def reader(self, path: str) -> Iterator[IO[bytes]]:
        """Opens a file for reading from its start."""
        with (
            explained(self.full(path)),
            self._opened_below(path, _FILE) as file_fd,
            open(file_fd, "rb", closefd=False) as file,
        ):
            yield file

    def _stat(self, path: str) -> os.stat_result | None:
        parent, _, name = path.rpartition("/")
        with explained(self.full(path)), suppress(FileNotFoundError):
            with self._opened_below(parent, _FOLDER) as folder_fd:
                found = os.stat(name or ".", dir_fd=folder_fd, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            return found
        return None

    @contextmanager
    def _opened_below(self, path: str, flags: int) -> Iterator[int]:
        """Opens what is at a path, with a descriptor for each folder on the way."""
        *folders, name = path.split("/") if path else ["."]
        current = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part, how in (*((one, _FOLDER) for one in folders), (name, flags)):
                below = os.open(part, how, dir_fd=current)
                os.close(current)
                current = below
            yield current
        finally:
            os.close(current)
