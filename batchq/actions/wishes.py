"""What is asked of a run: what to begin, and how to follow it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchq.host.interrupts import Interrupts
from batchq.plan import Plan

if TYPE_CHECKING:
    from batchq.actions.follow import Ended
    from batchq.actions.views import View
    from batchq.ports import RunInfo
    from batchq.services import Services


def _ignore(_: Ended) -> None:
    """Reports to nobody."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a run is started and followed.

    `report` is told the end before the processes are stopped, which takes a moment.
    """

    make_view: Callable[[], View]
    report: Callable[[Ended], None] = _ignore
    interrupts: Interrupts = field(default_factory=Interrupts)
    concurrency: int | None = None
    workers: int | None = None
    detach: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A run to be begun or taken up again.

    `begin` makes or reads it, `go` hands it to the coordinator. `before` is the id of a run that
    is taken up, whose stack's data is wanted.
    """

    plan: Plan
    begin: Callable[[Services], RunInfo]
    go: Callable[[RunInfo, Services], None]
    before: str = ""


@dataclass(frozen=True, slots=True)
class Driven:
    """A run that was begun; `ended` is None if it was left to others."""

    info: RunInfo
    ended: Ended | None
