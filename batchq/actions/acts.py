"""What people do to runs, from the command line and on the pages: stop, approve, label, mark."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchq.errors import QueueError, UsageError
from batchq.outcome import ItemError, Outcome
from batchq.ports import RunInfo
from batchq.progress import CanaryReport, RunState
from batchq.records import RunRecord, iso
from batchq.report.failures import group_of

if TYPE_CHECKING:
    from batchq.actions.lookup import Found
    from batchq.runs.versions import Version
    from batchq.services import Services

PAUSED, CANCELLED = "paused by a person", "cancelled by a person"


def pause(found: Found) -> None:
    """Lets no item of a run begin any more; what is in flight ends and is kept."""
    _stop(found, RunState.PAUSED, PAUSED)


def cancel(found: Found, services: Services) -> bool:
    """Ends a run early, also one that is paused; says whether it is over at once.

    That is so where nobody works on it; what its private Redis kept for a resume is removed.
    """
    record = found.record
    if found.services is not None or record is None:
        _stop(found, RunState.CANCELLED, CANCELLED)
        return False
    if record.state.is_over and record.state is not RunState.PAUSED:
        raise UsageError(f"{found.name} is {record.state.value} already")
    from batchq.embedded.stack import forget_data
    from batchq.runs.life import close_run, load_run
    from batchq.runs.uploads import cancel_left

    info = load_run(record)
    cancel_left(info, services)
    close_run(info, RunState.CANCELLED, CANCELLED, services)
    forget_data(services.settings.home, record.run)
    return True


def _stop(found: Found, state: RunState, reason: str) -> None:
    if found.services is None:
        raise QueueError(f"{found.name} is not in flight: nothing to stop")
    from batchq.queue.control import stop

    stop(found.run, state, reason, found.services)


def approve(info: RunInfo) -> CanaryReport:
    """Writes down that a run may go on after its first items; a resume then does.

    Raises UsageError if it does not wait for that.
    """
    from batchq.runs.life import open_folder
    from batchq.store.canary import read_canary, write_canary

    folder = open_folder(info.folder)
    report = read_canary(folder)
    if report is None or report.is_decided:
        name = f"{info.pipeline}@{info.version}"
        raise UsageError(f"{name} does not wait for a word; `batchq resume {name}` goes on with it")
    write_canary(folder, replace(report, state="approved"))
    return report


@dataclass(frozen=True, slots=True)
class Which:
    """Which failures are meant: all, those of a kind, or those of a group of `batchq failures`."""

    kind: str | None = None
    group: str | None = None

    def has(self, item_id: str, error: ItemError) -> bool:
        """Whether a failure is one of them."""
        if self.kind is not None and error.kind != self.kind:
            return False
        return self.group is None or group_of(item_id, error) == self.group


def count_failed(record: RunRecord, which: Which) -> tuple[int, Counter[str]]:
    """How many failed items of a run are meant, and how many there are of each kind."""
    from batchq.runs.life import open_folder

    folder = open_folder(record.folder)
    kinds: Counter[str] = Counter()
    meant = 0
    for step in folder.read_plan().steps:
        for line in folder.lines(step.spec.number, only_failed=True):
            if (error := line.outcome.error) is not None:
                kinds[error.kind] += 1
                meant += which.has(line.outcome.item_id, error)
    return meant, kinds


def reopen_failed(record: RunRecord, which: Which, services: Services) -> RunInfo:
    """Opens items of a run up again that failed; a resume then runs them."""
    from batchq.runs.life import reopen_run

    def is_again(outcome: Outcome) -> bool:
        return outcome.error is not None and which.has(outcome.item_id, outcome.error)

    return reopen_run(record, is_again, services)


def label(
    record: RunRecord, version: Version, word: str, note: str | None, services: Services
) -> None:
    """Gives a version a label, and a note if there is one; only a complete one can be final.

    Raises UsageError for what is no label.
    """
    from batchq.manifest.labels import FINAL, check_label
    from batchq.store.labelling import relabel

    check_label(word)
    if word == FINAL and record.state is not RunState.COMPLETED:
        name = f"{record.pipeline}@{record.version}"
        raise UsageError(
            f"{name} is {record.state.value}, so it cannot be final: `batchq resume {name}` first"
        )
    relabel(version.folder, word, note)
    notes = record.notes if note is None else note
    services.catalog.put_run(replace(record, status=word, notes=notes))


def mark(record: RunRecord, version: Version, item: str, verdict: str, note: str) -> str:
    """Marks an item, called by its id in any step, as good or bad; returns its name.

    Raises UsageError if the version is final, RunNotFound if it has no such item.
    """
    from batchq.runs.versions import require_changeable, require_item
    from batchq.store.marks import Mark, Verdict, put_mark

    require_changeable(record)
    name = require_item(version, item)
    put_mark(version.folder, name, Mark(Verdict(verdict), note, iso(time.time())))
    return name
