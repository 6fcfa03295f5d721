"""Shows a run on a terminal while it goes on, with bars that move."""

from __future__ import annotations

import os
import re
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from batchq.actions.views import (
    Pace,
    PlainView,
    QuietView,
    View,
    group_text,
    pace_text,
    spent_text,
    told_text,
    uploads_text,
)
from batchq.engine.canary import live_text
from batchq.progress import Progress
from batchq.text.amounts import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

RECENT_SHOWN = 3
TOLD_SHOWN = 16
BAR = 20
BESIDE_NAME = BAR + 18
"""What a line of a running item needs besides its name: bar, figures and the gaps between."""
LEAST_NAME = 12
NARROW, STEP_BAR, NARROW_BAR = 100, 28, 12
"""Below so many columns a step's group and pace stand on a line of their own."""

_DIGITS = re.compile(r"(\d+)")


def make_view(*, quiet: bool) -> View:
    """The view for where standard error goes: terminals that can move the cursor get a live one."""
    if quiet:
        return QuietView()
    is_dumb = os.environ.get("TERM", "dumb") == "dumb" or "CI" in os.environ
    return PlainView() if is_dumb or not sys.stderr.isatty() else LiveView()


def natural_order(name: str) -> list[tuple[bool, int, str]]:
    """Sorts names as people do: job2 before job10."""
    parts = _DIGITS.split(name)
    return [(one.isdecimal(), int(one) if one.isdecimal() else 0, one) for one in parts]


def middle_cut(name: str, width: int) -> str:
    """A name that is too long without its middle: names of jobs differ at their ends."""
    if len(name) <= width:
        return name
    end = (width - 1) * 2 // 3
    return f"{name[: width - 1 - end]}…{name[-end:]}"


class LiveView:
    """A bar a step, and the run's counts and newest failures under them."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._paces: dict[int, Pace] = {}

    def show(self, progress: Progress) -> None:
        """Draws it anew."""
        for step in progress.steps:
            pace = self._paces.setdefault(step.number, Pace())
            pace.note(progress.updated_at, step.summary.total)
        self._live.update(self._draw(progress), refresh=True)

    def note(self, text: str) -> None:
        """Says it above the bars."""
        self._console.print(text, markup=False)

    def _draw(self, progress: Progress) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        took = duration(max(0.0, progress.updated_at - progress.started_at))
        head = Text.assemble(
            (f"{progress.pipeline}@{progress.version}", "bold"),
            f"  {progress.state.value}  {took}",
        )
        is_narrow = self._console.width < NARROW
        grid, below = Table.grid(padding=(0, 2)), []
        for step in progress.steps:
            done, summary = step.summary.total, step.summary
            width = NARROW_BAR if is_narrow else STEP_BAR
            failed = (f"{summary.failed:,} failed", "red") if summary.failed else ("", "")
            pace = pace_text(step, self._paces[step.number]) if step.state == "running" else ""
            more = [group_text(step, progress.updated_at), pace]
            grid.add_row(
                Text(f"{step.number} {step.name}", no_wrap=True, overflow="ellipsis"),
                ProgressBar(total=max(1, step.total), completed=done, width=width),
                f"{done:,}/{step.total:,}" if step.total else "waits",
                f"{summary.ok:,} ok",
                Text(*failed),
                *([] if is_narrow else more),
            )
            if is_narrow and any(more):
                below.append(Text(f"  {step.name}: {', '.join(filter(None, more))}"))
        counts = Text(self._counts(progress), style="dim")
        lines: list[RenderableType] = [head, grid, *below, counts]
        if canary := live_text(progress):
            lines.append(Text(canary, style="dim"))
        if uploads := uploads_text(progress):
            lines.append(Text(uploads, style="dim"))
        lines += self._told(progress)
        lines += [
            Text(f"  {failure}", style="red", no_wrap=True, overflow="ellipsis")
            for failure in progress.recent[:RECENT_SHOWN]
        ]
        return Group(*lines)

    def _told(self, progress: Progress) -> list[RenderableType]:
        """A line for each running item that says how far it is."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        told = sorted(progress.told, key=lambda one: (one.step, natural_order(one.item_id)))
        room = max(LEAST_NAME, self._console.width - BESIDE_NAME)
        for one in told[:TOLD_SHOWN]:
            bar = ProgressBar(total=one.total or None, completed=one.done, width=BAR)
            grid.add_row(Text(f"  {middle_cut(one.item_id, room)}"), bar, told_text(one))
        more = len(told) - TOLD_SHOWN
        return [grid, *([f"  and {more} more"] if more > 0 else [])] if told else []

    def _counts(self, progress: Progress) -> str:
        usage, cached = progress.summary.usage, progress.summary.cached
        words = [f"{progress.in_flight:,} in flight", f"{progress.summary.retries:,} retried"]
        words += [f"{cached:,} from cache"] if cached else []
        if usage.calls:
            words.append(f"{usage.input_tokens:,} + {usage.output_tokens:,} tokens")
            words.append(spent_text(progress))
        if progress.bound_by:
            words.append(f"bound by {progress.bound_by}")
        return "  ".join(words)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
