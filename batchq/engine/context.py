"""What a Python function is given besides its item: who it is, folders, a cache, its progress."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from batchq.engine.turns import Turn, Turns
from batchq.errors import TaskError
from batchq.outcome import Measured
from batchq.plan import Resources
from batchq.ports import ItemRef


class TaskCache(Protocol):
    """A cache on this host's disk that tasks of all runs and processes share.

    Keys are texts; values are bytes or anything that is JSON.
    """

    def get(self, key: str, default: Any = None) -> Any:
        """What is kept under a key."""
        ...

    def set(self, key: str, value: Any, *, expire_s: float | None = None) -> None:
        """Keeps a value, for good or for a time; the oldest go when the cache is full."""
        ...

    def fetch(self, key: str, make: Callable[[], Any], *, expire_s: float | None = None) -> Any:
        """What is kept under a key; if nothing is, what `make` gives, which is then kept."""
        ...


class Workplace(Protocol):
    """Where tasks of this process work."""

    @property
    def cache(self) -> TaskCache:
        """The cache of this host."""
        ...

    def output_folder(self, ref: ItemRef, item_id: str) -> Path:
        """Where the files of an item belong; raises TaskError if it is out of reach here."""
        ...

    def tell_progress(self, ref: ItemRef, item_id: str, done: float, total: float | None) -> None:
        """Lets people see how far an item is."""
        ...

    def end_progress(self, ref: ItemRef, item_id: str) -> None:
        """Says that an item does not go on."""
        ...

    def begin(self) -> None:
        """Notes that a measured task begins, for who would find its process dead."""
        ...

    def end(self) -> None:
        """Notes that it has ended."""
        ...

    def reserve(
        self, need: Resources, sleep: Callable[[float], None]
    ) -> AbstractContextManager[None]:
        """Waits until an item fits on this host, and holds its place in the block.

        Raises NotNow if it fits on another host only, TaskError if on none.
        """
        ...


class TaskContext:
    """What a task function is told besides its item and its parameters.

    `state` is what the `setup` function of the step gave in this process. Folders are made when
    first asked for.
    """

    def __init__(
        self,
        ref: ItemRef,
        step: str,
        item_id: str,
        attempt: int,
        *,
        params: Mapping[str, Any] | None = None,
        state: Any = None,
        workplace: Workplace | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.run = ref.run
        self.step = step
        self.item_id = item_id
        self.index = ref.index
        self.attempt = attempt
        self.params = dict(params or {})
        self.state = state
        self.measured: Measured | None = None
        self.log = logging.LoggerAdapter(
            logging.getLogger("batchq.task"), {"run": ref.run, "step": step, "item": item_id}
        )
        self._ref = ref
        self._workplace = workplace
        self._turns = turns
        self._has_told = False
        self._has_begun = False

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """The same as `log`."""
        return self.log

    def progress(self, done: float, total: float | None = None) -> None:
        """Says how far the function is, for whoever watches; may be called as often as it likes."""
        if self._workplace is not None:
            self._has_told = True
            self._workplace.tell_progress(self._ref, self.item_id, done, total)

    def limit(self, provider: str, tokens: int = 0) -> AbstractContextManager[Turn]:
        """Waits until a call may be made under the limits of a provider of the manifest.

        The block is the call: one request, and so many tokens. It shares the limits with prompts,
        over all hosts and runs. A ProviderError that it raises, such as RateLimited, tells the
        limiter what a prompt's call would.
        """
        if self._turns is None:
            raise TaskError("there are no limits here", kind="task")
        return self._turns.take(provider, tokens)

    @property
    def halted(self) -> Exception | None:
        """Why the function cannot go on, whatever it made of it; see turns.Turns."""
        return self._turns.halted if self._turns else None

    @cached_property
    def temp(self) -> Path:
        """An empty folder that is removed when the function has ended."""
        return Path(tempfile.mkdtemp(prefix="batchq-task-"))

    @cached_property
    def output(self) -> Path:
        """An empty folder whose files are kept with the item, in the run folder, if it succeeds."""
        final = self._final
        final.parent.mkdir(parents=True, exist_ok=True)
        working = final.with_name(f".{final.name}-{uuid.uuid4().hex[:8]}")
        working.mkdir()
        return working

    @property
    def cache(self) -> TaskCache:
        """A cache on this host's disk that all jobs share."""
        return self._place.cache

    @property
    def _place(self) -> Workplace:
        if self._workplace is None:
            raise TaskError("there is no place for files here", kind="task")
        return self._workplace

    @cached_property
    def _final(self) -> Path:
        return self._place.output_folder(self._ref, self.item_id)

    def as_value(self, value: Any) -> Any:
        """Turns a path that a function returned into what is kept of it; other values stay."""
        if not isinstance(value, os.PathLike):
            return value
        path = Path(value)
        if not path.is_file():
            raise TaskError(f"the function returned {path}, which is no file", kind="task")
        if not path.is_relative_to(self.output):
            path = Path(shutil.copy2(path, self.output / path.name))
        shown = Path("items", self._final.parent.name, self._final.name)
        return {"file": str(shown / path.relative_to(self.output)), "bytes": path.stat().st_size}

    def begin(self) -> None:
        """Notes that the function begins, for who would find this process dead."""
        if self._workplace is not None:
            self._workplace.begin()
            self._has_begun = True

    def files(self) -> list[Path]:
        """The files in the output folder."""
        if "output" not in vars(self):
            return []
        return [path for path in self.output.rglob("*") if path.is_file()]

    def publish(self) -> None:
        """Puts the output folder to its place, over that of a try before."""
        if self.files():
            shutil.rmtree(self._final, ignore_errors=True)
            self.output.replace(self._final)

    def close(self) -> None:
        """Removes what is not kept, and says that the function does not go on."""
        for name in ("temp", "output"):
            if folder := vars(self).get(name):
                shutil.rmtree(folder, ignore_errors=True)
        if self._has_begun and self._workplace is not None:
            self._workplace.end()
        if self._has_told and self._workplace is not None:
            self._workplace.end_progress(self._ref, self.item_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
