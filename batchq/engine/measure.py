"""Measures what a task took of its process, and which numbers it gave."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from batchq.outcome import Json, Measured
from batchq.text.prompts import flatten

_RESET_PEAK = Path("/proc/self/clear_refs")
_STATUS = "/proc/{}/status"
_UNIT = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in


class Meter:
    """Measures the block: seconds, CPU seconds and the peak of memory, child processes included.

    They are those of the whole process: with one task at a time, as in prefork workers, those of
    the task. Where Linux cannot reset the peak, it is that since the process began.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.cpu_s = 0.0
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        with suppress(OSError):
            _RESET_PEAK.write_text("5", "ascii")
        self._children_peak = peak_of_children()
        self._began, self._cpu = time.monotonic(), _cpu_s()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seconds = round(time.monotonic() - self._began, 3)
        self.cpu_s = round(_cpu_s() - self._cpu, 3)
        children = peak_of_children()
        own = _peak()
        self.peak_bytes = max(own, children if children > self._children_peak else 0)

    def measured(
        self,
        output_bytes: int = 0,
        metrics: Mapping[str, float | None] | None = None,
        problem: str = "",
    ) -> Measured:
        """What was measured, with what is known of the output."""
        return Measured(
            self.seconds, self.cpu_s, self.peak_bytes, output_bytes, metrics or {}, problem
        )


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_of(process: int | str) -> int:
    """The most bytes of memory that a process, or `self`, had; 0 where nobody says."""
    with suppress(OSError):
        for line in Path(_STATUS.format(process)).read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _peak() -> int:
    return peak_of("self") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def peak_of_children() -> int:
    """The most bytes of memory that any child of this process had that has ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _UNIT


def numbers_in(value: Json, wanted: Sequence[str] = ()) -> dict[str, float | None]:
    """The numbers in an output by name, nested ones joined by `__`; None for one that is NaN.

    `wanted` takes those only. A number that is no part of a mapping is called `value`.
    """
    fields: Mapping[str, Any] = {"value": value}
    if isinstance(value, Mapping):
        fields = {
            name: one for name, one in flatten(value).items() if name != "item" or name in value
        }
    return {
        name: one if math.isfinite(one) else None
        for name, one in fields.items()
        if isinstance(one, int | float)
        and not isinstance(one, bool)
        and (not wanted or name in wanted)
    }
