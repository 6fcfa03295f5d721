"""Says which batches of a run are done, as the database tells it: group, batch, trace, elapsed."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

LOOK_EVERY_S = 0.5
NEWEST = "SELECT COALESCE(MAX(id), 0) FROM pipeline_stats"
SINCE = "SELECT id, batch_id, total_indicators FROM pipeline_stats WHERE id > ? ORDER BY id"


class Progress:
    """Prints a line for each batch that is written down while the block runs."""

    def __init__(self, database: Path, total: int, size: int, at_once: int) -> None:
        self._database = database
        self._total, self._size, self._at_once = total, size, at_once
        self._seen = max((row[0] for row in self._rows(NEWEST)), default=0)
        self._done = 0
        self._is_over = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._is_over.wait(LOOK_EVERY_S):
            self._tell()
        self._tell()

    def _tell(self) -> None:
        before, batches = self._done, -(-self._total // self._size)
        for place, trace, indicators in self._rows(SINCE, self._seen):
            self._seen, number = place, int(trace.rpartition("/")[2])
            group, groups = number // self._at_once + 1, -(-batches // self._at_once)
            first = number * self._size + 1
            self._done += indicators
            print(
                f"Group {group}/{groups}  Batch {number + 1}/{batches}: "
                f"indicators {first}-{first + indicators - 1} done (trace: {trace})",
                flush=True,
            )
        if self._done > before:
            share, elapsed_s = self._done / self._total, time.monotonic() - self._started
            print(f"Progress: {self._done}/{self._total} ({share:.0%}) - {elapsed_s:.0f}s elapsed")

    def _rows(self, query: str, *values: int) -> list[tuple]:
        """What the database answers; nothing as long as nobody has made it."""
        if not self._database.is_file():
            return []
        try:
            with sqlite3.connect(f"file:{self._database}?mode=ro", uri=True) as database:
                return database.execute(query, values).fetchall()
        except sqlite3.Error:
            return []
