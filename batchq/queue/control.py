"""Starts, stops and resumes runs."""

from __future__ import annotations

import time
from dataclasses import replace

from batchq.engine.collate import batch_count
from batchq.engine.tracing import span
from batchq.errors import QueueError, UsageError
from batchq.ports import RunInfo
from batchq.progress import RunState
from batchq.queue.names import CONTROL_QUEUE, DEFAULT_QUEUES
from batchq.runs.life import budget_of, open_folder
from batchq.services import Services
from batchq.store.canary import read_canary
from batchq.store.uploads import UploadStore
from batchq.store.worktime import note_resume


def start(
    info: RunInfo,
    services: Services,
    *,
    counted_from: float | None = None,
    is_private: bool = False,
) -> None:
    """Makes a run known to its coordinator, who sends the first batches at once.

    Its duration is counted from the submit, or from `counted_from`. Raises QueueError if Redis is
    out of reach; the run can be started later by a resume.
    """
    about = {
        "pipeline": info.pipeline,
        "version": info.version,
        "folder": info.folder,
        "created_at": str(info.created_at),
        "counted_from": str(info.created_at if counted_from is None else counted_from),
        "mode": info.mode,
        "base_version": info.base_version,
        "steps": "\n".join(step.spec.name for step in info.plan.steps),
        "catalog": services.settings.effective_catalog_url,
        "budget": "1" if info.plan.budget else "",
    }
    if budget := budget_of(info):
        services.budgets.open(info.run, budget, is_private=is_private)
    if info.plan.canary:
        about["canary"] = str(info.plan.canary.items)
        if report := read_canary(open_folder(info.folder)):
            services.canaries.put(info.run, report)
    with span("submit", run=info.run, pipeline=info.pipeline, version=info.version) as place:
        about["trace"] = place
        services.ledger.register(info.run, about, [step.spec for step in info.plan.steps])


def resume(info: RunInfo, services: Services, *, is_private: bool) -> None:
    """Goes on with a run that is paused, was interrupted, or has lost its Redis.

    Batches in the run folder are kept; of the others, items without an outcome run. A Redis that
    is private to this run has no live worker, so whatever it says of a running one is old.
    """
    if is_private:
        quiesce(info.run, services)
    elif services.ledger.state(info.run) is RunState.RUNNING:
        raise UsageError(f"{info.pipeline}@{info.version} is running: batchq watch follows it")
    services.ledger.rewind(info.run, [step.spec.number for step in info.plan.steps])
    _count_done(info, services)
    folder, now = open_folder(info.folder), time.time()
    for step in info.plan.steps:
        if step.spec.mode != "online":
            UploadStore(folder, step.spec.number).take_up()
    plan = folder.read_plan()
    if plan.budget != info.plan.budget:  # raised: the next resume is to know it
        folder.write_plan(replace(plan, budget=info.plan.budget))
    worked = note_resume(folder, info.created_at, now)
    start(info, services, counted_from=now - worked, is_private=is_private)


def _count_done(info: RunInfo, services: Services) -> None:
    """Sets the counters of the steps that are done, so that whoever watches sees the whole run."""
    folder = open_folder(info.folder)
    for number in folder.done_steps():
        total = folder.item_count(number) or 0
        batches = batch_count(total, info.plan.step(number).pacing.batch_size)
        done = folder.summary(number)
        services.ledger.start_step(
            info.run, number, total=total, batches=batches, max_failures=None, done=done
        )
        services.ledger.set_counters(info.run, number, {"next": batches})


def quiesce(run: str, services: Services) -> None:
    """Makes a private Redis that was left by dead processes safe for new workers to connect to.

    Messages that are old name servers and specs that are gone.
    """
    services.ledger.quiesce(run, (*DEFAULT_QUEUES, CONTROL_QUEUE))


def stop(run: str, state: RunState, reason: str, services: Services) -> None:
    """Pauses or cancels a run: no item is started any more, what is in flight ends and is kept.

    A run that is paused already can still be cancelled.
    """
    now = services.ledger.state(run)
    if now is None:
        raise QueueError(f"run {run} is not in flight on this broker")
    is_to_end = now is RunState.PAUSED and state is RunState.CANCELLED
    if now is not RunState.RUNNING and not is_to_end:
        raise UsageError(f"run {run} is {now.value} already")
    services.ledger.set_state(run, state, reason)
