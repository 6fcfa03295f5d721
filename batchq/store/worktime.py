"""How long a run has been at work, by its log: the night between a pause and a resume is not."""

from __future__ import annotations

from batchq.progress import RunState
from batchq.store.folder import RunFolder

_RESUMED = "run resumed"
_ENDS = {f"run {state.value}" for state in RunState if state.is_over}


def worked_s(folder: RunFolder, created_at: float, now: float) -> float:
    """Seconds at work from the submit until `now`, over all resumes and retries."""
    total = 0.0
    since: float | None = created_at
    for event in folder.read_log():
        at = float(event["ts"])
        if event["event"] == _RESUMED:
            if since is not None:  # it was killed: it worked until somebody saw the last of it
                total += max(0.0, float(event.get("seen_at", since)) - since)
            since = at
        elif event["event"] in _ENDS and since is not None:
            total += max(0.0, at - since)
            since = None
    return total if since is None else total + max(0.0, now - since)


def seen_at_work_s(folder: RunFolder, created_at: float) -> float:
    """Seconds at work of a run that was killed: until somebody saw the last of it."""
    return worked_s(folder, created_at, _last_sign(folder, created_at))


def note_resume(folder: RunFolder, created_at: float, now: float) -> float:
    """Writes down that a run goes on, and returns how long it had been at work before."""
    folder.append_log(_RESUMED, at=now, seen_at=_last_sign(folder, created_at))
    return worked_s(folder, created_at, now)


def _last_sign(folder: RunFolder, created_at: float) -> float:
    """When a run was last seen to do something: its newest log line, or its newest outcome."""
    seen = [created_at, *(float(event["ts"]) for event in folder.read_log())]
    for step in folder.read_plan().steps:
        if batches := folder.collated_batches(step.spec.number):
            outcomes = folder.read_batch(step.spec.number, max(batches))
            seen += [one.ended_at for one in outcomes]
    return max(seen)
