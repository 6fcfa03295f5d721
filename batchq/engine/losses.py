"""The outcomes of items that could not say themselves what became of them."""

from __future__ import annotations

from batchq.outcome import Attempt, ItemError, Measured, Outcome, State
from batchq.plan import Item

MAX_STARTS = 3
"""An item that took its process down this often is given up."""

LOST = (
    "its process died {times} times while it ran: look for a crash, os._exit or too little memory"
)
NOT_STARTED = (
    "it was sent several times and no worker started it: see why in their logs, and whether all "
    "hosts run the same version of batchq"
)


def lost(item: Item, starts: int, now: float) -> Outcome:
    """The outcome of an item whose process died each time it ran, or that nobody ever started."""
    error = ItemError("worker_lost", LOST.format(times=starts))
    if not starts:
        error = ItemError("not_started", NOT_STARTED)
    return given_up(item, error, now)


def given_up(
    item: Item,
    error: ItemError,
    now: float,
    *,
    began: float | None = None,
    measured: Measured | None = None,
) -> Outcome:
    """The outcome of an item that could not say itself why it failed, nor when it began."""
    began = now if began is None else began
    return Outcome(
        item_id=item.id,
        index=item.index,
        state=State.FAILED,
        error=error,
        attempts=(Attempt(1, began, round(now - began, 3), error=error),),
        started_at=began,
        ended_at=now,
        measured=measured,
    )
