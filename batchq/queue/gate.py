"""Keeps a run to its first items until it is decided that the others may follow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchq.engine.canary import canary_items, canary_reason, canary_text, judge_canary
from batchq.engine.collate import batch_count
from batchq.outcome import Outcome
from batchq.plan import Item, StepPlan
from batchq.ports import RunInfo
from batchq.progress import RunState
from batchq.services import Services
from batchq.store.canary import write_canary

if TYPE_CHECKING:
    from batchq.store import RunFolder


class Gate:
    """Stands before the first step of a run with a canary; open for every other one.

    While it is closed, batches hold first items only: the last of these may be cut short, and is
    parked when it is done, so that its other items find it as after a pause.
    """

    def __init__(self, info: RunInfo, services: Services, folder: RunFolder) -> None:
        self.info = info
        self.services = services
        self.folder = folder
        self._first: int | None = None

    def first(self, step: StepPlan) -> int:
        """How many items of a step may run; 0 if all may."""
        if self.info.plan.canary is None or step is not self.info.plan.steps[0]:
            return 0
        if self._first is None:
            report = self.services.canaries.get(self.info.run)
            total = self.folder.item_count(step.spec.number) or 0
            is_decided = report is not None and report.is_decided
            self._first = 0 if is_decided else canary_items(self.info.plan, total)
        return self._first

    def batches(self, step: StepPlan, total: int) -> int:
        """How many batches of a step may go out."""
        return batch_count(self.first(step) or total, step.pacing.batch_size)

    def items(self, step: StepPlan, batch: int) -> Sequence[Item]:
        """The items of a batch that may run."""
        size = step.pacing.batch_size
        items = self.folder.batch(step.spec.number, batch, size)
        return items[: max(0, first - batch * size)] if (first := self.first(step)) else items

    def cuts(self, step: StepPlan, batch: int) -> bool:
        """Whether a batch has items that may not run yet."""
        return 0 < self.first(step) < (batch + 1) * step.pacing.batch_size

    def judge(self, step: StepPlan) -> None:
        """Decides by the first items, all of which have ended, if the run goes on or stands still.

        Does nothing but send them again if the record of some is gone.
        """
        first, run, ledger = self.first(step), self.info.run, self.services.ledger
        number, size, canary = step.spec.number, step.pacing.batch_size, self.info.plan.canary
        assert canary is not None
        outcomes = self._outcomes(step)
        if len(outcomes) < first:
            ledger.set_counters(run, number, {"next": 0})
            return
        total = self.folder.item_count(number) or first
        report = judge_canary(self.info.plan, outcomes, total)
        write_canary(self.folder, report)
        self.services.canaries.put(run, report)
        self.folder.append_log(
            f"canary {report.state}", at=time.time(), step=step.spec.name, found=canary_text(report)
        )
        if report.is_decided:
            self._first = 0
            ledger.set_counters(run, number, {"next": first // size})
        else:
            name = f"{self.info.pipeline}@{self.info.version}"
            ledger.halt(run, RunState.PAUSED, canary_reason(report, canary, name))

    def _outcomes(self, step: StepPlan) -> list[Outcome]:
        number = step.spec.number
        found: list[Outcome] = []
        for batch in range(self.batches(step, 0)):
            is_whole = self.folder.has_batch(number, batch)
            read = self.folder.read_batch if is_whole else self.folder.parked
            wanted = {item.index for item in self.items(step, batch)}
            found += [one for one in read(number, batch) if one.index in wanted]
        return found
