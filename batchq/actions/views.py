"""Shows a run while it goes on, by lines that any file, notebook or terminal can take."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from types import TracebackType
from typing import Protocol, Self

from batchq.engine.budget import budget_text
from batchq.engine.canary import live_text
from batchq.outcome import Summary
from batchq.progress import ItemProgress, Progress, StepProgress
from batchq.text.amounts import count, duration, money

_log = logging.getLogger("batchq.run")

LINE_EVERY_S = 5.0
GROUP_LINE_EVERY_S = 1.0
IDLE_LINE_EVERY_S = 60.0
PACE_WINDOW_S = 20.0
TOLD_SHOWN = 4


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
    """A line every few seconds, at once when the state or a step changes, and for a new group.

    Groups that follow each other within a second share a line. While a run does nothing but wait
    for its next batch, a line a minute is enough.
    """

    def __init__(self) -> None:
        self._paces: dict[int, Pace] = {}
        self._said_at = 0.0
        self._said: tuple[object, ...] = ()
        self._said_groups: list[object] = []

    def show(self, progress: Progress) -> None:
        """Says a line if it is time for one."""
        for step in progress.steps:
            self._paces.setdefault(step.number, Pace()).note(
                progress.updated_at, step.summary.total
            )
        is_idle = is_between_batches(progress)
        canary = progress.canary and progress.canary.state
        change = (progress.state, canary, is_idle, *(one.state for one in progress.steps))
        groups: list[object] = [one.group for one in progress.steps]
        every_s = IDLE_LINE_EVERY_S if is_idle else LINE_EVERY_S
        if groups != self._said_groups:
            every_s = GROUP_LINE_EVERY_S
        if change == self._said and progress.updated_at < self._said_at + every_s:
            return
        self._said, self._said_groups, self._said_at = change, groups, progress.updated_at
        clock = time.strftime("%H:%M:%S", time.localtime(progress.updated_at))
        _say(f"{clock} {progress.pipeline}@{progress.version} {self._line(progress)}")

    def _line(self, progress: Progress) -> str:
        steps = [self._step(step, progress) for step in current_steps(progress)]
        summary = progress.summary
        words = [f"{summary.retries:,} retried"] if summary.retries else []
        words += [f"{summary.cached:,} from cache"] if summary.cached else []
        words += [spent_text(progress)] if summary.usage.calls else []
        words += [live_text(progress)] if progress.canary_items else []
        words += [uploads_text(progress)] if uploads_text(progress) else []
        words += [f"bound by {progress.bound_by}"] if progress.bound_by else []
        words += [f"{one.item_id} {told_text(one)}" for one in progress.told[:TOLD_SHOWN]]
        return "; ".join([progress.state.value, *steps, *filter(None, [", ".join(words)])])

    def _step(self, step: StepProgress, progress: Progress) -> str:
        """A step by its own items: those of the others are not added to them."""
        place = f"[{step.number}/{len(progress.steps)}] " if len(progress.steps) > 1 else ""
        words = [f"{place}{step.name} {step.summary.total:,}/{step.total:,}"]
        words += [f"{step.summary.failed:,} failed"] if step.summary.failed else []
        words.append(group_text(step, progress.updated_at))
        words.append(pace_text(step, self._paces[step.number]))
        return ", ".join(filter(None, words))


def current_steps(progress: Progress) -> list[StepProgress]:
    """The steps that are running, else the last one that has begun."""
    begun = [step for step in progress.steps if step.state != "waiting"]
    return [step for step in begun if step.state == "running"] or begun[-1:]


def is_between_batches(progress: Progress) -> bool:
    """Whether nothing is in flight because the next batch is not due for some time."""
    steps = [step for step in progress.steps if step.state == "running"]
    soon = progress.updated_at + LINE_EVERY_S
    is_waiting = all((step.next_batch_at or 0.0) > soon for step in steps)
    return bool(steps) and is_waiting and not progress.in_flight


def group_text(step: StepProgress, now: float) -> str:
    """Which group of concurrent batches a step is at, or when its next batch is due.

    Empty if there is one group only, or the step is done.
    """
    if step.state != "running":
        return ""
    left_s = (step.next_batch_at or now) - now
    if left_s > 1:
        return f"{step.collated:,}/{step.batches:,} batches, next in {duration(left_s)}"
    return f"Group {step.group:,}/{step.groups:,}" if step.groups > 1 else ""


def pace_text(step: StepProgress, pace: Pace) -> str:
    """How fast a step is, and how long the rest of it takes; empty while nothing is known.

    The pace of a batch says nothing about a step whose next batch a delay holds back.
    """
    left = step.total - step.summary.total
    left_s = pace.left_s(left)
    if left_s is None or not left or step.next_batch_at is not None:
        return ""
    return f"{pace.per_s:.1f}/s, about {duration(left_s)} left"


def told_text(told: ItemProgress) -> str:
    """How far an item says it is, such as `30/100`."""
    return f"{told.done:,g}" + (f"/{told.total:,g}" if told.total else "")


def uploads_text(progress: Progress) -> str:
    """How far the uploads at providers are; empty where there are none."""
    running = [one for one in progress.uploads if one.running]
    if not running:
        return ""
    uploads = count(sum(one.running for one in running), "upload")
    answered, lines = (sum(getattr(one, name) for one in running) for name in ("answered", "lines"))
    return f"{uploads} at {running[0].provider}, {answered:,} of {lines:,} answered"


def ways_text(summary: Summary) -> str:
    """How much of what was paid went in uploads; empty if nothing did."""
    if not summary.upload_calls:
        return ""
    calls, nusd = summary.upload_calls, summary.upload_nusd
    online, left = summary.usage.calls - calls, summary.usage.cost_nusd - nusd
    return (
        f"{count(calls, 'call')} in uploads for {money(nusd / 1e9)}, "
        f"{online:,} online for {money(left / 1e9)}"
    )


def cost_text(progress: Progress) -> str:
    """What the run has cost until now."""
    usage = progress.summary.usage
    return money(usage.cost_usd, usage.unpriced_calls)


def spent_text(progress: Progress) -> str:
    """What the run has cost until now; under a budget, how much of that is spent."""
    return cost_text(progress) if progress.budget is None else budget_text(progress.budget)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 (what it is for)
