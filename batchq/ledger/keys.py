"""Every Redis key of the ledger, in one place.

batchq:{RUN}:run            hash    state, reason, and what a coordinator needs to take it up
batchq:{RUN}:step:N         string  the StepSpec of step N, for workers
batchq:{RUN}:count:N        hash    counters of step N: ok, failed, tokens, next batch, ...
batchq:{RUN}:open           hash    "step:batch" -> when it was dispatched; gone once collated
batchq:{RUN}:out:N:B        hash    index -> outcome, of the open batch B of step N
batchq:{RUN}:lease:N:B      hash    index -> "starts owner question"
batchq:{RUN}:stage:N:B      hash    "index:stage" -> what the stage gave
batchq:{RUN}:brought:N:B    hash    index -> the answer that an upload brought for an item
batchq:{RUN}:uploads        hash    step -> how far its uploads are
batchq:{RUN}:uploading      string  who looks after the uploads of the run now
batchq:{RUN}:recent         list    the last failures, newest first
batchq:{RUN}:told           hash    "step:item" -> "done total" of running items that tell it
batchq:{RUN}:lock           string  who advances the run now
batchq:{RUN}:budget         hash    limits, spent, held, and how estimates compare with use
batchq:{RUN}:held           hash    lease -> what a call in flight holds of the budget
batchq:{RUN}:canary         string  what the first items cost, and what was decided
batchq:alive:OWNER          string  a process that says it is alive, with a time to live
batchq:hand:OWNER/QUEUE/SLOT list   messages that a slot has taken by itself, while it runs them
batchq:runs                 zset    run -> when it was created, of the runs that are not over
batchq:due                  zset    run -> when its coordinator should look at it next
batchq:uploads              zset    run -> when to look at its uploads next
batchq:{RUN}:notified       hash    the notices of a run that were put into the outbox
batchq:outbox               zset    notice -> when it is to be sent
batchq:letters              hash    notice -> what is to be sent, and how often it was tried
batchq:schedules            hash    name -> a manifest that is submitted by itself
batchq:scheduled            zset    name -> when it is submitted next
batchq:schedules:results    hash    name -> what became of the last time
batchq:tally                hash    what all processes counted, for metrics
batchq:tally:WORKER         hash    what the pool processes of one worker counted
"""

from __future__ import annotations

ALIVE = "batchq:alive:"
HAND = "batchq:hand:"
RUNS = "batchq:runs"
DUE = "batchq:due"
TALLY = "batchq:tally"
OUTBOX = "batchq:outbox"
LETTERS = "batchq:letters"
SCHEDULES = "batchq:schedules"
UPLOADS = "batchq:uploads"
SCHEDULED = "batchq:scheduled"
SCHEDULE_RESULTS = "batchq:schedules:results"
SENT_AT = "sent_at"
"""The header of a message that says when its batch was sent, in seconds since the epoch."""


def run(run: str) -> str:
    """The run's own hash."""
    return f"batchq:{{{run}}}:run"


def step(run: str, step: int) -> str:
    """What workers know of a step."""
    return f"batchq:{{{run}}}:step:{step}"


def counters(run: str, step: int) -> str:
    """The step's counters."""
    return f"batchq:{{{run}}}:count:{step}"


def open_batches(run: str) -> str:
    """The batches that are dispatched and not collated."""
    return f"batchq:{{{run}}}:open"


def outcomes(run: str, step: int, batch: int) -> str:
    """The outcomes of an open batch."""
    return f"batchq:{{{run}}}:out:{step}:{batch}"


def leases(run: str, step: int, batch: int) -> str:
    """Who runs which item of an open batch."""
    return f"batchq:{{{run}}}:lease:{step}:{batch}"


def checkpoints(run: str, step: int, batch: int) -> str:
    """What the stages of an open batch's items gave so far."""
    return f"batchq:{{{run}}}:stage:{step}:{batch}"


def brought(run: str, step: int, batch: int) -> str:
    """The answers that uploads brought for an open batch's items."""
    return f"batchq:{{{run}}}:brought:{step}:{batch}"


def uploads(run: str) -> str:
    """How far the uploads of its steps are."""
    return f"batchq:{{{run}}}:uploads"


def uploading(run: str) -> str:
    """The lock of whoever looks after the uploads of the run."""
    return f"batchq:{{{run}}}:uploading"


def recent(run: str) -> str:
    """The last failures."""
    return f"batchq:{{{run}}}:recent"


def told(run: str) -> str:
    """How far running items say they are."""
    return f"batchq:{{{run}}}:told"


def budget(run: str) -> str:
    """The run's budget."""
    return f"batchq:{{{run}}}:budget"


def held(run: str) -> str:
    """What calls in flight hold of the budget."""
    return f"batchq:{{{run}}}:held"


def canary(run: str) -> str:
    """What the first items of a run cost, and what was decided."""
    return f"batchq:{{{run}}}:canary"


def notified(run: str) -> str:
    """The notices of a run that were put into the outbox."""
    return f"batchq:{{{run}}}:notified"


def lock(run: str) -> str:
    """The lock of whoever advances the run."""
    return f"batchq:{{{run}}}:lock"
