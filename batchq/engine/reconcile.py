"""Decides what becomes of an open batch; pure, so that every case can be tested.

A coordinator asks twice: when a batch's chord has ended (`settle_batch`), and at each of its looks
at a run, since that end may be lost as anything else (`look_at_batch`). Only the holder of the
run's lock looks, and the ledger takes each effect once, so two who decide do no harm.

Each decision but to wait is logged in one line with its reason, and counted: `decisions` of
`tally.METRICS`, with the word of its `Fate`, which the coordinator's heartbeat takes to the hash
`batchq:tally` in Redis, from where metrics read it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from batchq.outcome import Outcome
from batchq.plan import Item
from batchq.ports import LATER, Lease, OpenBatch
from batchq.progress import RunState

MAX_DISPATCHES = 3
"""A batch that came back incomplete this often is closed with what it has."""


class Fate(StrEnum):
    """What becomes of an open batch."""

    WAIT = "wait"  # what is missing is on its way, or in somebody's hands
    COLLATE = "collate"  # every item has an outcome: into the run folder
    AGAIN = "send again"  # items were lost on the way: send these again
    GIVE_UP = "give up"  # they were lost every time: they fail, the batch is collated
    PARK = "park"  # the run stands still: keep what there is for a resume


@dataclass(frozen=True, slots=True)
class Decision:
    """A batch's fate, why, and the items that are meant: those without an outcome, or lost ones.

    `dispatches` is how often the batch was sent, with this decision.
    """

    fate: Fate
    why: str
    items: tuple[Item, ...] = ()
    dispatches: int = 0

    def __str__(self) -> str:
        items = f", {len(self.items)} items" if self.items else ""
        return f"{self.fate}{items}: {self.why}"


def missing_items(items: Sequence[Item], outcomes: Sequence[Outcome]) -> tuple[Item, ...]:
    """The items that have no outcome."""
    have = {outcome.index for outcome in outcomes}
    return tuple(item for item in items if item.index not in have)


def settle_batch(
    items: Sequence[Item], outcomes: Sequence[Outcome], state: RunState, opened: OpenBatch
) -> Decision:
    """Decides about a batch of which nothing more will come, from what is there of it."""
    missing, often = missing_items(items, outcomes), opened.dispatches
    if not missing:
        return Decision(Fate.COLLATE, "every item has ended")
    if state is not RunState.RUNNING:
        return Decision(Fate.PARK, f"the run is {state.value}", missing)
    if often < MAX_DISPATCHES:
        return Decision(Fate.AGAIN, "the batch came back without them", missing, often + 1)
    return Decision(Fate.GIVE_UP, f"the batch came back without them {often} times", missing)


def look_at_batch(
    items: Sequence[Item],
    outcomes: Sequence[Outcome],
    state: RunState,
    opened: OpenBatch,
    leases: Mapping[int, Lease],
    alive: Collection[str],
    *,
    has_passed: bool,
) -> Decision:
    """Decides about a batch whose end nobody has told yet.

    Items are lost that a process started which is dead now; and, once all messages of the batch
    have left the queue (`has_passed`), those that nobody started. An item that a busy worker has
    fetched already may be sent twice by this; its claim keeps it from being run twice.
    """
    missing = missing_items(items, outcomes)
    if not missing:
        return Decision(Fate.COLLATE, "every item has ended, and its end was not told")
    held = {item.index for item in missing if item.index in leases}
    is_held = any(leases[index].owner in alive for index in held)
    if state is not RunState.RUNNING:
        if is_held:
            return Decision(Fate.WAIT, "some of its items run still")
        return Decision(Fate.PARK, f"the run is {state.value}", missing)
    orphans = {index for index in held if _is_orphan(leases[index], alive)}
    strays = {item.index for item in missing} - held if has_passed else set()
    lost = tuple(item for item in missing if item.index in orphans | strays)
    if not lost:
        return Decision(Fate.WAIT, "its items are on their way")
    found = (orphans, "whose process died"), (strays, "whose message was lost")
    why = " and ".join(f"{len(indexes)} {what}" for indexes, what in found if indexes)
    return Decision(Fate.AGAIN, why, lost, opened.dispatches)


def _is_orphan(lease: Lease, alive: Collection[str]) -> bool:
    return lease.owner not in alive and lease.owner != LATER
