"""Runs one item: claim it, walk its stages, keep the outcome."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from batchq.engine.calling import NotNow
from batchq.engine.context import TaskContext
from batchq.engine.delivered import Delivered, not_taken
from batchq.engine.functions import call_task
from batchq.engine.losses import LOST, MAX_STARTS
from batchq.engine.retry import decide, is_retryable
from batchq.engine.spending import Purse
from batchq.engine.stages import (
    Conversation,
    StageResult,
    Tools,
    call_model,
    merged,
    run_command,
)
from batchq.engine.turns import Turns
from batchq.errors import (
    AuthFailed,
    BudgetUsedUp,
    LimitError,
    OutputError,
    ProviderError,
    TaskError,
    UnknownModel,
)
from batchq.host.logs import log_fields
from batchq.outcome import Attempt, ItemError, Json, Measured, Outcome, SentPrompt, State, Usage
from batchq.plan import Item, StageSpec, StepSpec, decode, encode
from batchq.ports import TRIED, Claim, ItemRef, WorkerLedger
from batchq.text.amounts import duration
from batchq.text.conditions import evaluate

log = logging.getLogger(__name__)

RAW_LIMIT = 20_000
LOOK_EVERY_S = 1.0
HOPELESS = (AuthFailed, UnknownModel)
"""Errors that every item would meet, until a person mends something."""
ITEM_ERRORS = (ProviderError, OutputError, TaskError, LimitError)


class RunHalted(Exception):
    """Raised inside the runner when going on would fail every item alike, such as a bad key.

    The run stands still then, or fails if `ends_run`.
    """

    def __init__(self, reason: str = "", *, ends_run: bool = False) -> None:
        self.ends_run = ends_run
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the runner did with an item: the claim it got, and why the run should stand still, or
    fail if `ends_run`. An item with `again_s` waits for its provider and comes back after it.
    """  # noqa: D205 (one sentence)

    claim: Claim
    is_ok: bool = False
    halt: str = ""
    ends_run: bool = False
    again_s: float = 0.0


@dataclass
class _Walk:
    """What is known of an item on its way through its stages."""

    ref: ItemRef
    item: Item
    step: StepSpec
    owner: str
    tools: Tools
    checkpoints: dict[str, Json]
    attempts: list[Attempt] = field(default_factory=list)
    prompts: list[SentPrompt] = field(default_factory=list)
    repaired: bool = False
    raw: str = ""
    started_at: float = 0.0
    measured: Measured | None = None
    delivered: Delivered | None = None

    def usage(self) -> Usage:
        return sum((attempt.usage for attempt in self.attempts), Usage())

    def is_cached(self) -> bool:
        return any(attempt.cached for attempt in self.attempts) and not self.usage().calls


def run_item(
    ref: ItemRef, item: Item, step: StepSpec, ledger: WorkerLedger, owner: str, tools: Tools
) -> Receipt:
    """Runs an item unless it is done, held or stopped, and keeps its outcome in the ledger.

    Raises nothing for reasons of the item; QueueError if the ledger is out of reach for long.
    """
    claim = ledger.claim(ref, owner)
    if claim.claim is not Claim.RUN:
        return Receipt(claim.claim)
    tools = replace(tools, sleep=_watchful_sleep(ref, ledger, tools.sleep))
    if claim.has_budget and tools.budgets is not None:
        tools = replace(tools, purse=Purse(ref.run, owner, tools.budgets))
    tried = _tried_before(claim.checkpoints)
    walk = _Walk(
        ref, item, step, owner, tools, dict(claim.checkpoints), tried, started_at=tools.clock()
    )
    walk.delivered = not_taken(claim.delivered, tried)
    error: ItemError | None = None
    output: Json = None
    if claim.starts > MAX_STARTS:
        error = ItemError("worker_lost", LOST.format(times=MAX_STARTS))
    else:
        try:
            with _place(step, tools):
                walk.started_at = tools.clock()
                output = _walk_stages(walk, ledger)
        except RunHalted as halt:
            # What was paid for stays paid for; what failed unpaid is not held against the item.
            paid = [one for one in walk.attempts if one.error is None or one.usage.calls]
            _keep_tries(walk, ledger, paid)
            ledger.release(ref)
            return Receipt(Claim.STOPPED, halt=str(halt), ends_run=halt.ends_run)
        except NotNow as later:
            _step_aside(walk, ledger, claim.starts, later.wait_s)
            return Receipt(Claim.HELD, again_s=later.wait_s)
        except _StageFailed as failed:
            error = failed.error
        except TaskError as refused:
            error = ItemError(refused.kind, str(refused))
        except Exception as failure:
            # One of the two borders: a fault of ours must not break the chord.
            log.exception("item failed by a fault in batchq", extra={"item": item.id})
            error = ItemError("internal", f"{type(failure).__name__}: {failure}")
    if error is not None:
        # A lone surrogate in somebody's message cannot be written as UTF-8.
        message = error.message.encode("utf-8", "replace").decode()
        error = replace(error, message=message)
    outcome = Outcome(
        item_id=item.id,
        index=item.index,
        state=State.OK if error is None else State.FAILED,
        output=output if error is None else None,
        error=error,
        attempts=tuple(walk.attempts),
        usage=walk.usage(),
        prompts=tuple(walk.prompts) if step.save_prompts else (),
        raw=walk.raw[:RAW_LIMIT] if error is not None else "",
        repaired=walk.repaired,
        cached=walk.is_cached(),
        started_at=walk.started_at,
        ended_at=tools.clock(),
        worker=owner.partition("/")[0],
        measured=walk.measured,
    )
    ledger.commit(ref, outcome)
    return Receipt(Claim.RUN, is_ok=outcome.is_ok)


def _place(step: StepSpec, tools: Tools) -> AbstractContextManager[None]:
    """Holds what an item takes of its host, if its step says so."""
    if step.resources is None or tools.workplace is None:
        return nullcontext()
    return tools.workplace.reserve(step.resources, tools.sleep)


def _step_aside(walk: _Walk, ledger: WorkerLedger, starts: int, wait_s: float) -> None:
    """Gives the slot away until later; what was tried counts on."""
    _keep_tries(walk, ledger, walk.attempts)
    ledger.release(walk.ref, starts=starts - 1, until=walk.tools.clock() + wait_s)


def _keep_tries(walk: _Walk, ledger: WorkerLedger, tries: Sequence[Attempt]) -> None:
    """Keeps them for whoever runs the item next."""
    if tries:
        ledger.checkpoint(walk.ref, TRIED, [json.loads(encode(one)) for one in tries])


def _tried_before(checkpoints: Mapping[str, Json]) -> list[Attempt]:
    return [decode(Attempt, json.dumps(one)) for one in checkpoints.get(TRIED, ())]


def _watchful_sleep(
    ref: ItemRef, ledger: WorkerLedger, sleep: Callable[[float], None]
) -> Callable[[float], None]:
    """A sleep that ends early, with RunHalted, when the run is paused or cancelled."""

    def watchful(seconds: float) -> None:
        while seconds > LOOK_EVERY_S:
            sleep(LOOK_EVERY_S)
            seconds -= LOOK_EVERY_S
            if not ledger.is_running(ref.run):
                raise RunHalted
        sleep(seconds)

    return watchful


class _StageFailed(Exception):
    def __init__(self, error: ItemError) -> None:
        self.error = error
        super().__init__(error.message)


def _walk_stages(walk: _Walk, ledger: WorkerLedger) -> Json:
    """Does each stage that is due; returns the last value, or all of them for several stages."""
    data = walk.item.data
    values: dict[str, Json] = {}
    stages = walk.step.stages
    for stage in stages:
        if stage.name in walk.checkpoints:
            value = walk.checkpoints[stage.name]
        elif stage.when and not _is_due(stage, data):
            continue
        else:
            value = _attempt_stage(walk, stage, data)
            if len(stages) > 1:
                ledger.checkpoint(walk.ref, stage.name, value)
        values[stage.name] = value
        if len(stages) > 1:
            data = merged(data, stage.name, value)
    return values[""] if len(stages) == 1 and stages[0].name == "" else _final(values)


def _final(values: Mapping[str, Json]) -> Json:
    """The output of a staged item: the fields of all its stages, and each under its name."""
    output: Json = {}
    for stage, value in values.items():
        output = merged(output, stage, value)
    return output


def _is_due(stage: StageSpec, data: Json) -> bool:
    try:
        return bool(evaluate(stage.when, data))
    except TaskError as error:
        raise _StageFailed(ItemError(error.kind, str(error), stage.name)) from error


def _attempt_stage(walk: _Walk, stage: StageSpec, data: Json) -> Json:
    """Tries a stage as often as the step's retry policy allows."""
    try:
        one_try = _prepare(walk, stage, data)
    except TaskError as error:
        raise _StageFailed(ItemError(error.kind, str(error), stage.name)) from error
    number = sum(one.stage == stage.name for one in walk.attempts)
    brought = sum(bool(one.upload) for one in walk.attempts)
    while True:
        number += 1
        log_fields(attempt=number)
        began = walk.tools.clock()
        try:
            result = one_try.go(number)
        except BudgetUsedUp as error:
            raise RunHalted(str(error), ends_run=error.ends_run) from error
        except ITEM_ERRORS as error:
            problem = ItemError(error.kind, str(error), stage.name)
            walk.attempts.append(one_try.attempt(number, began, problem))
            walk.raw = one_try.raw()
            if one_try.is_delivered():
                if not _goes_online(walk.step, error):
                    raise _StageFailed(problem) from error
                brought += 1
                one_try.ask_again(error)
                continue
            if isinstance(error, HOPELESS):
                raise RunHalted(f"step {walk.step.name}: {error}") from error
            if one_try.has_probed(error):
                _look_at_outage(walk, one_try, error)
                number -= 1  # the provider is down, it is not for this item
                continue
            decision = decide(walk.step.retry, error, number - brought, random.Random())
            if not decision.retry:
                raise _StageFailed(problem) from error
            if decision.note:
                log.warning("%s: %s", problem.message, decision.note, extra={"item": walk.item.id})
            one_try.ask_again(error)
            _wait_to_retry(walk, one_try, decision.wait_s)
        else:
            walk.attempts.append(one_try.attempt(number, began, None, result))
            walk.repaired = walk.repaired or result.repaired
            return result.value


def _goes_online(step: StepSpec, error: Exception) -> bool:
    """Whether what an upload did not answer is asked online: then its tries begin there.

    What is wrong with every call of a key or a model, a call online says in a way that halts.
    """
    return step.mode == "auto" and (is_retryable(error) or isinstance(error, HOPELESS))


def _look_at_outage(walk: _Walk, one_try: _Try, error: Exception) -> None:
    outage_s = one_try.talk.outage_s if one_try.talk else 0.0
    if outage_s > walk.tools.outage_s:
        raise RunHalted(
            f"step {walk.step.name}: nobody has had an answer for {duration(outage_s)}: {error}"
        ) from error


def _wait_to_retry(walk: _Walk, one_try: _Try, wait_s: float) -> None:
    if wait_s > walk.tools.patience_s and one_try.can_leave():
        raise NotNow(wait_s)
    walk.tools.sleep(wait_s)


@dataclass
class _Try:
    """One stage, ready to be tried; `talk` is set for prompts."""

    walk: _Walk
    stage: StageSpec
    run: Callable[[int], StageResult]
    talk: Conversation | None = None

    def go(self, number: int) -> StageResult:
        return self.run(number)

    def has_probed(self, error: Exception) -> bool:
        """Whether this failed as the one call that tries if an outage is over."""
        talk = self.talk
        return talk is not None and talk.is_probe and talk.outage_s > 0 and is_retryable(error)

    def is_delivered(self) -> bool:
        """Whether the attempt under way took what an upload brought."""
        return self.talk is not None and bool(self.talk.upload)

    def ask_again(self, error: Exception) -> None:
        """Lets the next try tell the model what is wrong with its answer."""
        if isinstance(error, OutputError) and self.talk is not None:
            self.talk.ask_again(error)

    def can_leave(self) -> bool:
        """Whether nothing is lost when the item waits elsewhere."""
        return self.talk is not None and not self.talk.is_asked_again

    def raw(self) -> str:
        return self.talk.raw if self.talk else ""

    def attempt(
        self, number: int, began: float, error: ItemError | None, result: StageResult | None = None
    ) -> Attempt:
        talk = self.talk
        return Attempt(
            number=number,
            started_at=began,
            duration_s=round(self.walk.tools.clock() - began, 6),
            waited_s=round(talk.waited_s, 6) if talk else 0.0,
            stage=self.stage.name,
            error=error,
            usage=talk.usage if talk else Usage(),
            model=result.model if result else (talk.model if talk else ""),
            cached=talk.cached if talk else False,
            upload=talk.upload if talk else "",
        )


def _prepare(walk: _Walk, stage: StageSpec, data: Json) -> _Try:
    step, tools = walk.step, walk.tools
    place = f"{walk.ref.run}/{step.number}/{walk.ref.index}/{stage.name}"
    if stage.kind == "prompt":
        talk = Conversation.begin(stage, data)
        talk.delivered, walk.delivered = walk.delivered, None
        walk.prompts.append(SentPrompt(stage.name, talk.text))

        def ask(number: int) -> StageResult:
            return call_model(talk, step, f"{place}/{number}/{walk.owner}", tools)

        return _Try(walk, stage, ask, talk)
    if stage.kind == "command":
        return _Try(walk, stage, lambda _: run_command(stage, data, step.timeout_s))
    item = replace(walk.item, data=data)

    def call(number: int) -> StageResult:
        lease = f"{place}/{number}/{walk.owner}"
        turns = Turns(step.providers, tools.limiter, tools.clock, tools.sleep, lease)
        names = (step.name, item.id, number)
        context = TaskContext(
            walk.ref, *names, params=step.params, workplace=tools.workplace, turns=turns
        )
        try:
            return StageResult(call_task(stage, item, step, context, tools.tasks))
        finally:
            walk.measured = context.measured

    return _Try(walk, stage, call)
