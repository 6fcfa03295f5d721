"""Moves a run forward: settles batches, sends the next, ends steps and the run.

Everything here may happen twice, at the same time, or stop in the middle: it reads where the run
stands from the run folder and the ledger, does the next thing, and looks again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from batchq.broker.signing import NotSigned
from batchq.engine.collate import allowed_failures, batch_count, ready_steps, room_for
from batchq.engine.losses import lost
from batchq.engine.reconcile import Decision, Fate, look_at_batch, missing_items, settle_batch
from batchq.errors import BatchqError, PlanError, QueueError, StoreError
from batchq.outcome import Json, Outcome, Summary
from batchq.plan import Item, StepPlan
from batchq.ports import ItemRef, OpenBatch, RunInfo
from batchq.progress import RunState
from batchq.queue.dispatch import dispatch_batch
from batchq.queue.gate import Gate
from batchq.queue.landing import Landing
from batchq.runs.life import (
    count_step,
    finish_run,
    finish_step,
    open_folder,
    pause_run,
    record_batch,
)
from batchq.store.earlier import with_earlier
from batchq.store.halfway import forget_stages, keep_stages, kept_stages
from batchq.store.reopen import lay_out

if TYPE_CHECKING:
    from batchq.queue.app import BatchqApp
    from batchq.store import RunFolder

log = logging.getLogger(__name__)

TELL_EVERY = 200
"""Batches that are in the folder already are passed over with a word to Redis for so many."""

LEAVE_S = 1.0
ABANDONED_AFTER_S = 30.0
"""At the end of a run, a temporary file that is older was left by a process that was killed."""


def advance(run: str, app: BatchqApp, collate: tuple[int, int] | None = None) -> None:
    """Does what is next for a run; with `collate`, first settles that (step, batch).

    A store that fails pauses the run: outcomes stay in Redis, and a resume goes on from there.
    """
    ledger = app.services.ledger
    try:
        info = app.services.info(run)
        if info is None:
            return
        mover = _Mover(info, app)
        if collate is not None:
            mover.settle(*collate)
        with ledger.lock(run) as is_mine:
            if is_mine:
                mover.go_on()
            else:
                ledger.look_at(run)  # whoever has the lock may have looked too early
    except QueueError:
        raise  # Redis is away: the message comes again, or the next look finds it
    except NotSigned as error:
        log.error("refused: %s", error, extra={"run": run})
        ledger.set_state(run, RunState.PAUSED, str(error))
        ledger.rest(run)
    except StoreError as error:
        log.warning("the run is paused: %s", error, extra={"run": run})
        ledger.set_state(run, RunState.PAUSED, str(error))
    except BatchqError as error:
        log.warning("the run has failed: %s", error, extra={"run": run})
        ledger.set_state(run, RunState.FAILED, str(error))


def _noting(rows: Iterable[tuple[int, Json]], places: list[int]) -> Iterator[Json]:
    for place, value in rows:
        places.append(place)
        yield value


class _Mover:
    """One look at one run."""

    def __init__(self, info: RunInfo, app: BatchqApp) -> None:
        self.info = info
        self.run = info.run
        self.app = app
        self.services = app.services
        self.ledger = app.services.ledger
        self.folder: RunFolder = open_folder(info.folder)
        self.gate = Gate(info, app.services, self.folder)

    def settle(self, number: int, batch: int) -> None:
        """Decides what becomes of a batch of which nothing more will come, and does it."""
        opened = self.ledger.open_batches(self.run).get((number, batch))
        if opened is None:
            return  # settled before
        step = self.info.plan.step(number)
        items = self.gate.items(step, batch)
        outcomes = self.ledger.outcomes(self.run, number, batch)
        state = self.ledger.state(self.run) or RunState.CANCELLED
        decision = settle_batch(items, outcomes, state, opened)
        self._note(step, batch, decision)
        if decision.fate is Fate.AGAIN:
            self._send_again(step, batch, decision, opened)
        elif decision.fate is Fate.PARK:
            self._park(step, batch, outcomes)
        elif decision.fate is Fate.GIVE_UP:
            self._give_up(number, batch, decision.items)
            outcomes = self.ledger.outcomes(self.run, number, batch)
            if not missing_items(items, outcomes):  # else somebody else has just settled it
                self._record(step, batch, outcomes)
        else:
            self._record(step, batch, outcomes)

    def _note(self, step: StepPlan, batch: int, decision: Decision) -> None:
        self.services.tally.add("decisions", decision.fate.value)
        is_loss = decision.fate in (Fate.AGAIN, Fate.GIVE_UP)
        log.log(
            logging.WARNING if is_loss else logging.INFO,
            "batch %d of step %s: %s",
            batch,
            step.spec.name,
            decision,
            extra={"run": self.run},
        )

    def go_on(self) -> None:
        """Does all that can be done now."""
        while self.ledger.state(self.run) is RunState.RUNNING:
            done = self.folder.done_steps()
            if len(done) == len(self.info.plan.steps):
                self._finish(RunState.COMPLETED, "")
                return
            ended = [self._move(step) for step in ready_steps(self.info.plan.steps, done)]
            if not any(ended):
                return
        if not self.ledger.is_registered(self.run):
            self.ledger.forget(self.run)  # it was over before: whoever had the lock has ended it
            return
        about = self.ledger.about(self.run)
        if about["state"] == RunState.PAUSED and about.get("rested", "") == about.get("since"):
            self.ledger.rest(self.run)  # this pause is written down: a batch came after the others
            return
        self._drain(RunState(about["state"]), about["reason"])

    def _move(self, step: StepPlan) -> bool:
        """Sends what a step has room for, or ends it; says whether it was ended."""
        number = step.spec.number
        counters = self.ledger.counters(self.run, number) or self._start(step)
        landing = self._landing(step)
        if landing.is_awaited:
            self.services.uploads.follow(self.run)
        batches = self.gate.batches(step, counters["total"])
        opened = {
            batch: at
            for (owner, batch), at in self.ledger.open_batches(self.run).items()
            if owner == number
        }
        for batch, one in opened.items():
            self._rescue(step, batch, one)
        position, is_told = counters["next"], True
        while position < batches:
            if not landing.has(position):
                return False  # its answers are still to come
            last_at = counters.get("sent_at_ms", 0) / 1000
            room = room_for(step, opened, last_at, time.time())
            if room.wait_s:
                self.ledger.look_at(self.run, room.wait_s)
            if not room.batches:
                return False
            if position not in opened and not self.folder.has_batch(number, position):
                self._log_pace(step, position, batches)
                self._send(step, position, landing)
                opened[position] = OpenBatch(time.time(), 1)
                counters["sent_at_ms"] = round(time.time() * 1000)
                is_told = False
            position += 1
            if not is_told or position % TELL_EVERY == 0 or position == batches:
                values = {"next": position, "sent_at_ms": counters.get("sent_at_ms", 0)}
                self.ledger.set_counters(self.run, number, values)
                is_told = True
        if any(owner == number for owner, _ in self.ledger.open_batches(self.run)):
            return False
        if self.gate.first(step):
            self.gate.judge(step)
            return True
        if len(self.folder.collated_batches(number)) < batches:
            self.ledger.set_counters(self.run, number, {"next": 0})  # a record is gone: do it again
            return True
        finish_step(self.info, step, self.services)
        landing.clear()
        return True

    def _landing(self, step: StepPlan) -> Landing:
        return Landing(self.folder, step, is_shut=bool(self.gate.first(step)))

    def _start(self, step: StepPlan) -> dict[str, int]:
        """Freezes a step's items, unless that was done, and sets its counters."""
        number = step.spec.number
        total = self.folder.item_count(number)
        if total is None:
            total = self.folder.freeze_items(number, self._chained_items(step))
        lay_out(self.folder, number, step.pacing.batch_size)
        self.ledger.start_step(
            self.run,
            number,
            total=total,
            batches=batch_count(total, step.pacing.batch_size),
            max_failures=allowed_failures(step.tolerance, total),
            done=count_step(self.info, number, self.services),
        )
        pacing = step.pacing  # for whoever watches: they know the ledger only
        shown = {
            "window": pacing.concurrent_batches,
            "delay_ms": round(pacing.batch_delay_s * 1000),
        }
        self.ledger.set_counters(self.run, number, shown)
        return self.ledger.counters(self.run, number)

    def _chained_items(self, step: StepPlan) -> Iterator[Item]:
        """The items that a step makes of the output before it; each keeps the index it had.

        So an item is known by its index in all steps, also when others failed on the way, and a
        rerun can tell which items of a later step are those to be redone.
        """
        from batchq.planning.items import without_sample
        from batchq.planning.planner import iter_items  # and the manifest's checks: 200 ms
        from batchq.store.search import taken_by

        before = next(one for one in self.info.plan.steps if one.spec.name == step.needs[-1])
        rerun = self.folder.rerun()
        redo = rerun.redo[step.spec.number] if rerun else None
        if redo and redo.kind == "none":
            return
        chosen = set(rerun.chosen[redo.root]) if rerun and redo and redo.kind == "some" else None
        self._check_input(step, before)
        plan = self.info.plan
        if rerun and chosen is not None and step.input.guide is not None:
            # What is redone may hold other values now, by which others would be chosen.
            plan, taken = without_sample(plan, step.spec.number), taken_by(self.folder, rerun, step)
            chosen &= taken
        places: list[int] = []
        values = _noting(self.folder.collated_rows(before.spec.number), places)
        for item in iter_items(plan, step.spec.number, values):
            if step.input.whole:
                yield item
                continue
            index = places[item.index]
            if chosen is None or index in chosen:
                yield Item(item.id if step.input.id_field else str(index), index, item.data)

    def _check_input(self, step: StepPlan, before: StepPlan) -> None:
        if not any(one.is_ok for one in self.folder.merged_lines(before.spec.number)):
            failed = self.folder.summary(before.spec.number).failed
            raise PlanError(
                f"step {step.spec.name} has no input: all {failed} items of step "
                f"{before.spec.name} failed"
            )

    def _send(self, step: StepPlan, batch: int, landing: Landing) -> None:
        """Sends the items of a batch that have no outcome from before."""
        number = step.spec.number
        kept = self.folder.parked(number, batch)
        # Answers that came before Redis or its processes died: the counters are the folder's.
        known = {one.index for one in kept}
        before = self.ledger.outcomes(self.run, number, batch)
        left = (Summary.of(one) for one in before if one.index not in known)
        items = self.gate.items(step, batch)
        sent_at = self.ledger.open_batch(
            self.run,
            number,
            batch,
            kept,
            dispatches=1,
            uncounted=sum(left, Summary()),
            stages=kept_stages(self.folder, number, batch),
            brought=landing.answers(missing_items(items, kept)),
        )
        outcomes = self.ledger.outcomes(self.run, number, batch)
        missing = missing_items(items, outcomes)
        if missing:
            dispatch_batch(self.run, step, batch, missing, sent_at, self.app)
        else:
            self._record(step, batch, outcomes)

    def _rescue(self, step: StepPlan, batch: int, opened: OpenBatch) -> None:
        """Sends the items of an open batch again that nobody will bring."""
        if time.time() - opened.sent_at < 2 * self.services.settings.lease_ttl_s:
            return
        number = step.spec.number
        items = self.gate.items(step, batch)
        # A queue is first in, first out: a later message at its head, and ours are out.
        has_passed = self.ledger.oldest_message(f"batchq.{step.queue}") > opened.sent_at
        decision = look_at_batch(
            items,
            self.ledger.outcomes(self.run, number, batch),
            self.ledger.state(self.run) or RunState.CANCELLED,
            opened,
            self.ledger.leases(self.run, number, batch),
            self.ledger.alive(),
            has_passed=has_passed,
        )
        if decision.fate in (Fate.COLLATE, Fate.PARK):
            self.settle(number, batch)  # which looks again: its end may be told in this moment
        elif decision.fate is Fate.AGAIN:
            self._note(step, batch, decision)
            self._send_again(step, batch, decision, opened)

    def _log_pace(self, step: StepPlan, batch: int, batches: int) -> None:
        """Notes when a batch goes out, where the manifest says how fast they are to go."""
        pacing = step.pacing
        if pacing.is_chosen or pacing.batch_delay_s:
            self.folder.append_log(
                "batch sent",
                at=time.time(),
                step=step.spec.name,
                batch=batch + 1,
                batches=batches,
            )

    def _send_again(
        self, step: StepPlan, batch: int, decision: Decision, opened: OpenBatch
    ) -> None:
        number, often = step.spec.number, decision.dispatches
        sent_at = self.ledger.reopen_batch(self.run, number, batch, opened, dispatches=often)
        if sent_at is None:
            return  # settled since we looked: what seemed missing is in the folder
        self.folder.append_log(
            "items sent again",
            at=time.time(),
            level="warning",
            step=step.spec.name,
            batch=batch,
            reason=decision.why,
            items=[item.id for item in decision.items],
        )
        dispatch_batch(self.run, step, batch, decision.items, sent_at, self.app)

    def _park(self, step: StepPlan, batch: int, outcomes: list[Outcome]) -> None:
        """Keeps what there is of a batch in the run folder, what its items gave half way, too."""
        number = step.spec.number
        keep_stages(self.folder, number, batch, self.ledger.stages(self.run, number, batch))
        self.folder.park_batch(number, batch, outcomes, step.output)
        self.ledger.close_batch(self.run, number, batch, keep_stages=True)

    def _give_up(self, number: int, batch: int, missing: tuple[Item, ...]) -> None:
        leases = self.ledger.leases(self.run, number, batch)
        for item in missing:
            starts = leases[item.index].starts if item.index in leases else 0
            ref = ItemRef(self.run, number, batch, item.index)
            self.ledger.commit(ref, lost(item, starts, time.time()))

    def _record(self, step: StepPlan, batch: int, outcomes: list[Outcome]) -> None:
        """Makes a batch durable, then lets Redis forget it."""
        outcomes = with_earlier(self.folder, step.spec.number, outcomes)
        if self.gate.cuts(step, batch):
            self.folder.park_batch(step.spec.number, batch, outcomes, step.output)
        else:
            # The catalog first: once a batch has its record, a resume does not come back to it.
            record_batch(self.info, step, batch, outcomes, self.services)
            forget_stages(self.folder, step.spec.number, batch)
            self.folder.write_batch(step.spec.number, batch, outcomes, step.output)
        self.ledger.close_batch(self.run, step.spec.number, batch)

    def _drain(self, state: RunState, reason: str) -> None:
        """Waits until nothing of a stopped run is in flight, then ends it unless it is paused."""
        for (number, batch), opened in self.ledger.open_batches(self.run).items():
            self._rescue(self.info.plan.step(number), batch, opened)
        if self.ledger.open_batches(self.run):
            return
        if state is not RunState.PAUSED and self._takes_leave():
            return
        if state is RunState.PAUSED:
            pause_run(self.info, reason, self.services)
        else:
            self._finish(state, reason)

    def _takes_leave(self) -> bool:
        """Whether uploads of a run that ends early are still to be cancelled."""
        steps = [
            step for step in self.info.plan.steps if self._landing(step).is_abroad(time.time())
        ]
        if steps:
            self.services.uploads.follow(self.run, at_once=True)
            self.ledger.look_at(self.run, LEAVE_S)
        return bool(steps)

    def _finish(self, state: RunState, reason: str) -> None:
        self.folder.files.sweep(ABANDONED_AFTER_S)
        finish_run(self.info, state, reason, self.services)
