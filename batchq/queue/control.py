"""Starts, stops and resumes runs."""

from __future__ import annotations

from batchq.errors import QueueError, UsageError
from batchq.ports import RunInfo, RunState
from batchq.queue.names import CONTROL_QUEUE, DEFAULT_QUEUES
from batchq.services import Services


def start(info: RunInfo, services: Services) -> None:
    """Makes a run known to its coordinator, who sends the first batches at once.

    Raises QueueError if Redis is out of reach; the run can be started later by a resume.
    """
    about = {
        "pipeline": info.pipeline,
        "version": info.version,
        "folder": info.folder,
        "created_at": str(info.created_at),
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
    start(info, services)


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
