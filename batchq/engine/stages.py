"""Does one attempt at one stage of an item: a call to a model, or a program."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from batchq.engine.answers import Answers, cache_key
from batchq.engine.calling import Caller
from batchq.engine.context import Workplace
from batchq.engine.delivered import Delivered
from batchq.engine.spending import Purse, estimate_call
from batchq.errors import OutputError, ProviderError, TaskError
from batchq.outcome import Json, Usage
from batchq.plan import StageSpec, StepSpec
from batchq.planning.pricing import cost, upload_prices
from batchq.ports import Budgets, ChatReply, ChatRequest, KeptAnswer, Limiter, Message, Provider
from batchq.text.parsing import parse_answer, parse_loose
from batchq.text.prompts import render

ASK_AGAIN = (
    "Your answer could not be used: {detail}\n"
    "Answer again with the corrected JSON only, without any other text."
)
# Long enough for the runner's sleep to look whether the run still goes on.
WAITED_IN_VAIN_S = 1.5
STDERR_TAIL = 2_000


@dataclass(frozen=True, slots=True)
class Tools:
    """What the stages of an item work with. `tasks` are the patterns of modules allowed to run.

    `patience_s` is how long an item may wait in its slot, where it can wait elsewhere.
    """

    limiter: Limiter
    provider: Callable[[str], Provider]
    tasks: Sequence[str] = ()
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    answers: Answers | None = None
    budgets: Budgets | None = None
    outage_s: float = 300.0  # a provider that answers nobody for longer is not waited for
    purse: Purse | None = None  # of the item that is run, if its run has a budget
    patience_s: float = math.inf
    workplace: Workplace | None = None


@dataclass(frozen=True, slots=True)
class StageResult:
    """What one attempt gave."""

    value: Json
    usage: Usage = Usage()
    model: str = ""
    repaired: bool = False
    waited_s: float = 0.0


@dataclass
class Conversation:
    """The messages of one prompt stage; grows when the model is asked again."""

    stage: StageSpec
    system: str
    messages: tuple[Message, ...]
    usage: Usage = Usage()  # of the attempt under way, also when it fails
    model: str = ""
    waited_s: float = 0.0
    raw: str = ""
    cached: bool = False
    is_probe: bool = False  # whether it tried if an outage is over
    outage_s: float = 0.0
    delivered: Delivered | None = None  # what an upload brought, until it is taken
    upload: str = ""  # the upload that brought the answer of the attempt under way

    @classmethod
    def begin(cls, stage: StageSpec, data: Json) -> Conversation:
        """Renders the stage's prompts for an item; raises TaskError of kind "prompt"."""
        text = render(stage.prompt, data, is_jinja=stage.prompt_is_jinja)
        system = render(stage.system, data, is_jinja=stage.system_is_jinja) if stage.system else ""
        return cls(stage, system, (Message("user", text),))

    @property
    def text(self) -> str:
        """What is sent first, for the run folder."""
        head = f"{self.system}\n\n---\n\n" if self.system else ""
        return head + self.messages[0].content

    def ask_again(self, error: OutputError) -> None:
        """Adds the bad answer and what is wrong with it, keeping only the last bad one."""
        again = Message("user", ASK_AGAIN.format(detail=error.detail))
        self.messages = (self.messages[0], Message("assistant", error.raw or "{}"), again)

    @property
    def is_asked_again(self) -> bool:
        """Whether an answer was refused before."""
        return len(self.messages) > 1


def call_model(talk: Conversation, step: StepSpec, lease: str, tools: Tools) -> StageResult:
    """Takes a kept answer or makes one call under the provider's limits, and reads the answer.

    Raises ProviderError, OutputError or LimitError; `talk` then holds the usage of the call.
    """
    talk.usage, talk.model, talk.raw, talk.waited_s, talk.cached = Usage(), "", "", 0.0, False
    talk.is_probe, talk.outage_s, talk.upload = False, 0.0, ""
    request = request_of(talk, step.timeout_s)
    if talk.delivered is not None:
        return _take_delivered(talk, talk.delivered, request, tools)
    cache, answers = request.provider.cache, tools.answers
    if cache is None or answers is None:
        return _paid_call(talk, request, lease, tools)
    # An answer that had to be asked for twice is kept for the first question, too.
    key = cache_key(replace(request, messages=talk.messages[:1]))
    if talk.is_asked_again or cache.max_age_s == 0:
        result = _paid_call(talk, request, lease, tools)
        answers.keep(key, talk.raw, talk.model, talk.usage)
        return result
    with answers.turn(key) as has_waited:
        kept = answers.find(key, cache.max_age_s)
        found = _read_kept(kept, talk) if kept is not None else None
        if found is not None:
            return found
        if has_waited:
            tools.sleep(WAITED_IN_VAIN_S)
        result = _paid_call(talk, request, lease, tools)
        answers.keep(key, talk.raw, talk.model, talk.usage)
        return result


def request_of(talk: Conversation, timeout_s: float) -> ChatRequest:
    """The call that is next in a conversation; `timeout_s` is that of its step, 0 for none."""
    stage, provider = talk.stage, talk.stage.provider
    assert provider is not None  # a prompt stage has one: see planner
    return ChatRequest(
        provider=provider,
        messages=talk.messages,
        system=talk.system,
        options=stage.options,
        schema=stage.output_schema,
        timeout_s=min(timeout_s, provider.timeout_s) if timeout_s else provider.timeout_s,
    )


def _take_delivered(
    talk: Conversation, delivered: Delivered, request: ChatRequest, tools: Tools
) -> StageResult:
    """Reads what an upload brought as if it had come now; its run has paid for it already."""
    talk.delivered, talk.upload = None, delivered.upload
    talk.usage = delivered.usage(upload_prices(request.provider.prices))
    talk.model, talk.raw = delivered.model, delivered.text or delivered.raw
    if (error := delivered.as_error()) is not None:
        raise error
    result = _read(ChatReply(delivered.text, delivered.model, Usage()), talk)
    if request.provider.cache is not None and tools.answers is not None:
        tools.answers.keep(cache_key(request), talk.raw, talk.model, talk.usage)
    return result


def _read_kept(kept: KeptAnswer, talk: Conversation) -> StageResult | None:
    """Reads an answer as if it had come now, but unpaid; None if it does not fit any more."""
    try:
        result = _read(ChatReply(kept.text, kept.model, Usage()), talk)
    except OutputError:
        return None
    talk.model, talk.raw, talk.cached = kept.model, kept.text, True
    return result


def _paid_call(talk: Conversation, request: ChatRequest, lease: str, tools: Tools) -> StageResult:
    """Makes a call within the budget of the item's run, if it has one."""
    purse = tools.purse
    if purse is None:
        return _call(talk, request, lease, tools)
    need = estimate_call(request, talk.stage)
    purse.hold(lease, need, tools.sleep)
    try:
        return _call(talk, request, lease, tools)
    finally:
        purse.settle(lease, need, talk.usage)


def _call(talk: Conversation, request: ChatRequest, lease: str, tools: Tools) -> StageResult:
    # What a model was told about a wrong answer would be lost on the way: that item stays.
    patience_s = math.inf if talk.is_asked_again else tools.patience_s
    caller = Caller(tools.limiter, tools.provider, tools.clock, tools.sleep, patience_s)
    try:
        reply = caller.call(request, lease)
    except ProviderError as error:
        if sum(error.tokens):
            talk.usage = cost(Usage(1, *error.tokens), request.provider.prices)
        talk.raw = error.raw
        raise
    finally:
        talk.waited_s = caller.waited_s
        talk.is_probe, talk.outage_s = caller.is_probe, caller.outage_s
    talk.usage = cost(reply.usage, request.provider.prices)
    talk.model, talk.raw = reply.model, reply.text
    return _read(reply, talk)


def _read(reply: ChatReply, talk: Conversation) -> StageResult:
    schema = talk.stage.output_schema
    if schema is None:
        return StageResult(parse_loose(reply.text), talk.usage, reply.model, waited_s=talk.waited_s)
    parsed = parse_answer(reply.text, schema)
    return StageResult(parsed.value, talk.usage, reply.model, parsed.repaired, talk.waited_s)


def run_command(stage: StageSpec, data: Json, timeout_s: float) -> StageResult:
    """Runs a program without a shell; its standard output is the value, as JSON if it is JSON.

    Raises TaskError of kind "command" (exit status, not found) or "timeout".
    """
    arguments = [render(part, data, is_jinja=False) for part in stage.command]
    try:
        done = subprocess.run(  # noqa: S603 (the manifest is trusted like code)
            arguments,
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s or None,
        )
    except subprocess.TimeoutExpired as error:
        message = f"{arguments[0]} did not end within {timeout_s:g} s"
        raise TaskError(message, kind="timeout", retryable=True) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in an argument
        raise TaskError(f"cannot run {arguments[0]}: {error}", kind="command") from error
    if done.returncode != 0:
        tail = done.stderr.decode("utf-8", "replace").strip()[-STDERR_TAIL:]
        message = f"{arguments[0]} ended with status {done.returncode}: {tail or 'no message'}"
        raise TaskError(message, kind="command", retryable=True)
    return StageResult(parse_loose(done.stdout.decode("utf-8", "replace").rstrip("\n")))


def merged(data: Json, stage: str, value: Json) -> Json:
    """Adds a stage's value to what later stages see.

    Under the stage's name, and if it is a mapping also its fields by their own names; a field
    wins over a stage of the same name.
    """
    fields: dict[str, Json] = dict(data) if isinstance(data, Mapping) else {"item": data}
    fields[stage] = value
    if isinstance(value, Mapping):
        fields.update(value)
    return fields
