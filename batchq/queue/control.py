"""Starts, stops and resumes runs."""

from __future__ import annotations

import time

from batchq.errors import QueueError, UsageError
from batchq.ports import RunInfo, RunState
from batchq.queue.names import CONTROL_QUEUE, DEFAULT_QUEUES
from batchq.runs import open_folder
from batchq.services import Services
from batchq.store.worktime import note_resume


def start(info: RunInfo, services: Services, *, counted_from: float | None = None) -> None:
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
    }
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
    now = time.time()
    worked = note_resume(open_folder(info.folder), info.created_at, now)
    start(info, services, counted_from=now - worked)


def quiesce(run: str, services: Services) -> None:
    """Makes a private Redis that was left by dead processes safe for new workers to connect to.

    Messages that are old name servers and specs that are gone.
    """
    services.ledger.quiesce(run, (*DEFAULT_QUEUES, CONTROL_QUEUE))


def stop(run: str, state: RunState, reason: str, services: Services) -> None:
    """Pauses or cancels a run: no item is started any more, what is in flight ends and is kept."""
    now = services.ledger.state(run)
    if now is None:
        raise QueueError(f"run {run} is not in flight on this broker")
    if now is not RunState.RUNNING:
        raise UsageError(f"run {run} is {now.value} already")
    services.ledger.set_state(run, state, reason)
