"""Shows a run while it goes on, by lines that any file, notebook or terminal can take."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from types import TracebackType
from typing import Protocol, Self

from batchq.amounts import duration, money
from batchq.ports import Progress, StepProgress

_log = logging.getLogger("batchq.run")

LINE_EVERY_S = 5.0
PACE_WINDOW_S = 20.0


class View(Protocol):
    """What a follower shows a run with."""

    def show(self, progress: Progress) -> None:
        """Takes the newest look at the run."""
        ...

    def note(self, text: str) -> None:
        """Says something beside it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Pace:
    """Items a second of one step, over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now: float, done: int) -> None:
        """Takes how many are done at a time."""
        self._seen.append((now, done))
        while self._seen[0][0] < now - PACE_WINDOW_S:
            self._seen.popleft()

    @property
    def per_s(self) -> float:
        """Items a second; 0 while nothing is known."""
        if len(self._seen) < 2:
            return 0.0
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - start) if end > start else 0.0

    def left_s(self, left: int) -> float | None:
        """How long so many more take; None while nothing is known."""
        return left / self.per_s if self.per_s > 0 else None


class QuietView:
    """Shows nothing but notes."""

    def show(self, progress: Progress) -> None:
        """Shows nothing."""

    def note(self, text: str) -> None:
        """Says it."""
        _say(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


class LoggedView(QuietView):
    """Shows nothing; its notes go to the log `batchq.run`, for programs that follow a run."""

    def note(self, text: str) -> None:
        """Logs it."""
        _log.info("%s", text)


class PlainView(QuietView):
    """A line every few seconds, and at once when a step or the state changes."""

    def __init__(self) -> None:
        self._paces: dict[int, Pace] = {}
        self._said_at = 0.0
        self._said: tuple[str, ...] = ()

    def show(self, progress: Progress) -> None:
        """Says a line if it is time for one."""
        for step in progress.steps:
            self._paces.setdefault(step.number, Pace()).note(
                progress.updated_at, step.summary.total
            )
        change = (progress.state.value, *(step.state for step in progress.steps))
        if change == self._said and progress.updated_at < self._said_at + LINE_EVERY_S:
            return
        self._said, self._said_at = change, progress.updated_at
        clock = time.strftime("%H:%M:%S", time.localtime(progress.updated_at))
        _say(f"{clock} {progress.pipeline}@{progress.version} {self._line(progress)}")

    def _line(self, progress: Progress) -> str:
        words = [progress.state.value]
        step = current_step(progress)
        if step is not None:
            words.append(f"{step.name} {step.summary.total:,}/{step.total:,}")
            words.append(pace_text(step, self._paces[step.number]))
        summary = progress.summary
        words.append(f"{summary.ok:,} ok")
        words += [f"{summary.failed:,} failed"] if summary.failed else []
        words += [f"{summary.retries:,} retried"] if summary.retries else []
        words += [f"{summary.cached:,} from cache"] if summary.cached else []
        words += [cost_text(progress)] if summary.usage.calls else []
        return ", ".join(filter(None, words))


def current_step(progress: Progress) -> StepProgress | None:
    """The step that is running, else the last one that has begun."""
    begun = [step for step in progress.steps if step.state != "waiting"]
    return next((step for step in begun if step.state == "running"), begun[-1] if begun else None)


def pace_text(step: StepProgress, pace: Pace) -> str:
    """How fast a step is, and how long the rest of it takes; empty while nothing is known."""
    left = step.total - step.summary.total
    left_s = pace.left_s(left)
    if left_s is None or not left:
        return ""
    return f"{pace.per_s:.1f}/s, about {duration(left_s)} left"


def cost_text(progress: Progress) -> str:
    """What the run has cost until now."""
    usage = progress.summary.usage
    return money(usage.cost_usd, usage.unpriced_calls)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 (what it is for)
