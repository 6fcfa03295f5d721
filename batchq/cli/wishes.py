"""What is asked of a run: what to begin, and how to follow it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchq.plan import Plan

if TYPE_CHECKING:
    from batchq.ports import RunInfo
    from batchq.services import Services


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a run is started and followed."""

    concurrency: int | None = None
    workers: int | None = None
    detach: bool = False
    quiet: bool = False
    as_json: bool = False
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
