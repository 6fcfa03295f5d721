"""`batchq explain`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from batchq.actions.asjson import story_json
from batchq.cli.output import count, duration, local_time, money, put, put_json
from batchq.cli.request import json_option
from batchq.outcome import Attempt, Outcome
from batchq.records import iso
from batchq.runs.story import StepStory, Story, rounds
from batchq.services import COMMAND_PATIENCE_S, build_services
from batchq.settings import load_settings

_MAX_LINES = 12
_MAX_CHARS = 400
_SHORT_S = 0.05  # a wait that would be shown as 0.0s


@click.command("explain")
@click.argument("run")
@click.argument("item")
@json_option
def explain_command(run: str, item: str, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Tells the whole story of ITEM in RUN: attempts, waits, prompts, cost, files, over all steps.

    Where RUN is a rerun that took the item over, the story is that of the version that ran it.
    """
    from batchq.cli.versions import find_version
    from batchq.runs.story import tell

    services = build_services(load_settings(), patience_s=COMMAND_PATIENCE_S)
    story = tell(find_version(run, services)[1], item)
    if as_json:
        put_json(story_json(story))
        return
    for line in _story_lines(story):
        put(line)


def _story_lines(story: Story) -> Iterator[str]:
    summary = story.summary
    tokens = summary.usage.tokens
    name = f"{story.pipeline}@{story.version}"
    yield f"{story.item_id} of {name}, number {story.index + 1:,} in the input"
    if len(story.lineage) > 1:
        yield f"  lineage  {' <- '.join(story.lineage)}"
    if story.mark:
        note = f": {story.mark.note}" if story.mark.note else ""
        yield f"  mark     {story.mark.verdict}{note}"
    spent = money(summary.usage.cost_usd, summary.usage.unpriced_calls)
    yield f"  cost     {spent}, {count(summary.usage.calls, 'call')}, {count(tokens, 'token')}"
    for step in story.steps:
        yield ""
        yield from _step_lines(story, step)


def _step_lines(story: Story, step: StepStory) -> Iterator[str]:
    name = f" as {step.item_id}" if step.item_id not in ("", story.item_id) else ""
    where = f", in {step.version}" if step.version != story.version else ""
    yield f"{step.number} {step.step}{name}: {_state(step)}{where}"
    if step.outcome is None:
        yield from _attempt_lines(step.earlier.attempts if step.earlier else ())
        return
    outcome = step.outcome
    if outcome.error:
        yield f"  error    {outcome.error.kind}: {_cut(outcome.error.message)}"
    yield from _attempt_lines(outcome.attempts)
    if outcome.worker:
        yield f"  worker   {outcome.worker}"
    if step.prompt_path:
        yield f"  prompt   {step.prompt_path}"
        yield from (f"    {line}" for line in _excerpt(step.prompt))
    if step.output_path:
        yield f"  output   {step.output_path}"
    if step.is_edited:
        yield "           edited by hand: it is not what the run wrote, and collating leaves it out"
    if not outcome.is_ok and outcome.raw:
        yield "  answer"
        yield from (f"    {line}" for line in _excerpt(outcome.raw))


def _state(step: StepStory) -> str:
    if not step.is_reached:
        return "did not come here"
    if step.outcome is None:
        return "has not ended since it was retried" if step.earlier else "has not ended"
    outcome = step.outcome
    words = [outcome.state.value]
    if outcome.cached:
        words.append("out of the cache")
    if outcome.repaired:
        words.append("its JSON was repaired")
    words += [count(len(outcome.attempts), "attempt"), duration(_took_s(outcome))]
    if outcome.usage.calls:
        words.append(money(outcome.usage.cost_usd, outcome.usage.unpriced_calls))
    return ", ".join(words)


def _attempt_lines(attempts: Sequence[Attempt]) -> Iterator[str]:
    before = 1
    for number, attempt in zip(rounds(attempts), attempts, strict=True):
        if number != before:
            yield f"  retried  {local_time(iso(attempt.started_at))}"
        before = number
        yield f"  {_attempt_line(attempt)}"


def _attempt_line(attempt: Attempt) -> str:
    stage = f" {attempt.stage}" if attempt.stage else ""
    waited = (
        f" after a wait of {duration(attempt.waited_s)}" if attempt.waited_s >= _SHORT_S else ""
    )
    usage = attempt.usage
    tokens = f", {usage.input_tokens:,} + {usage.output_tokens:,} tokens" if usage.calls else ""
    model = f", {attempt.model}" if attempt.model else ""
    model += f", in upload {attempt.upload}" if attempt.upload else ""
    error = attempt.error
    end = f"{error.kind}: {_cut(error.message)}" if error else "ok"
    took = duration(attempt.duration_s)
    return f"attempt{stage} {attempt.number}  {took}{waited}{tokens}{model}: {end}"


def _took_s(outcome: Outcome) -> float:
    return max(0.0, outcome.ended_at - outcome.started_at)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_CHARS else f"{line[:_MAX_CHARS]}…"


def _excerpt(text: str) -> list[str]:
    lines = text.splitlines()
    shown = [line[:_MAX_CHARS] for line in lines[:_MAX_LINES]]
    rest = len(lines) - len(shown)
    return [*shown, f"… and {count(rest, 'more line', 'more lines')}"] if rest else shown
