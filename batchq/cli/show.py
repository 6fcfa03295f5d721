"""`batchq show`: a run, or one item of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from batchq.actions.asjson import mark_json, record_json
from batchq.actions.lookup import Found, as_seen, find
from batchq.cli.output import count, duration, money, put, put_json, table
from batchq.cli.request import json_option
from batchq.cli.runs import version_lines
from batchq.cli.summary import as_json as progress_json
from batchq.cli.summary import summary_lines
from batchq.errors import RunNotFound
from batchq.records import RunRecord
from batchq.services import COMMAND_PATIENCE_S, build_services
from batchq.settings import load_settings

if TYPE_CHECKING:
    from batchq.runs.story import StepStory
    from batchq.store.marks import Mark

MAX_SHOWN = 20
"""Most failed, and most marked, items that a run is shown with."""


@click.command("show")
@click.argument("run")
@click.argument("rest", nargs=-1, metavar="[vN] [ITEM]")
@json_option
def show_command(run: str, rest: tuple[str, ...], as_json: bool) -> None:  # noqa: FBT001 (click)
    """Shows RUN, or one ITEM of it: outputs, attempts, errors, marks. PIPELINE vN is RUN, too."""
    words = [*rest]
    if words and words[0][:1] == "v" and words[0][1:].isdigit() and "@" not in run:
        run = f"{run}@{words.pop(0)}"
    if len(words) > 1:
        raise click.UsageError(f"{words[1]!r} is one word too many")
    found = find(run, load_settings())
    if found.record is None:
        raise RunNotFound(f"{found.name} was submitted elsewhere; `batchq status` shows it")
    if words:
        _show_item(found.record, words[0], as_json=as_json)
    else:
        _show_run(found, found.record, as_json=as_json)


def _show_run(found: Found, record: RunRecord, *, as_json: bool) -> None:
    from batchq.runs.versions import open_version
    from batchq.store.marks import marks_of

    marks = marks_of(open_version(record.pipeline, record.version, record.folder).folder)
    services = build_services(load_settings(), patience_s=COMMAND_PATIENCE_S)
    failed = services.catalog.items(record.run, state="failed", limit=MAX_SHOWN)
    seen = found.progress()
    if as_json:
        told = {item: mark_json(mark) for item, mark in marks.items()}
        items = {"failed_items": list(failed), "marks": told}
        put_json({**record_json(record), **progress_json(seen), **items})
        return
    for line in version_lines(as_seen(record, load_settings()), is_latest=False):
        put(line)
    put(f"  Folder: {record.folder}")
    put()
    for line in summary_lines(seen):
        put(line)
    if failed:
        put()
        rows = [
            (f"  {one['id']}", f"step {one['step']}", one["kind"], one["error"]) for one in failed
        ]
        for line in table(rows):
            put(line)
    if marks:
        put()
        for line in _mark_lines(marks):
            put(line)


def _mark_lines(marks: Mapping[str, Mark]) -> Iterator[str]:
    """The bad ones first: those are to be done again."""
    ordered = sorted(marks.items(), key=lambda one: (one[1].verdict, one[1].at))
    yield from table(
        [(f"  {item}", f"marked {one.verdict}", one.note) for item, one in ordered[:MAX_SHOWN]]
    )
    if len(ordered) > MAX_SHOWN:
        yield f"  and {len(ordered) - MAX_SHOWN:,} more marks"


def _show_item(record: RunRecord, item: str, *, as_json: bool) -> None:
    from batchq.runs.story import tell
    from batchq.runs.versions import open_version

    story = tell(open_version(record.pipeline, record.version, record.folder), item)
    if as_json:
        told = mark_json(story.mark) if story.mark else None
        put_json([_step_json(step) | {"mark": told} for step in story.steps if step.is_reached])
        return
    if story.mark:
        note = f": {story.mark.note}" if story.mark.note else ""
        put(f"{story.item_id} is marked {story.mark.verdict}{note}")
    for step in story.steps:
        for line in _step_lines(step, item):
            put(line)


def _step_lines(step: StepStory, item: str) -> Iterator[str]:
    name = f"{item}  step {step.number}"
    if step.outcome is None:
        yield f"{name}  {'has not ended' if step.is_reached else 'did not come here'}"
        return
    outcome = step.outcome
    tokens = outcome.usage.tokens
    spent = f"{tokens:,} tokens, {money(outcome.usage.cost_usd, outcome.usage.unpriced_calls)}"
    tries = count(len(outcome.attempts), "attempt")
    took = duration(max(0.0, outcome.ended_at - outcome.started_at))
    yield f"{name}  {outcome.state.value}  {tries}, {took}, {spent}"
    if outcome.error:
        yield f"  {outcome.error.kind}: {outcome.error.message}"
    if outcome.is_ok:
        yield json.dumps(step.output, ensure_ascii=False, indent=2)


def _step_json(step: StepStory) -> dict[str, Any]:
    outcome = step.outcome
    told: dict[str, Any] = {"id": step.item_id, "step": step.number, "version": step.version}
    if outcome is None:
        return told | {"state": "waiting"}
    usage = outcome.usage
    return told | {
        "index": outcome.index,
        "state": outcome.state.value,
        "kind": outcome.error.kind if outcome.error else "",
        "error": outcome.error.message if outcome.error else "",
        "attempts": len(outcome.attempts),
        "tokens": usage.tokens,
        "cost_usd": usage.cost_usd,
        "duration_ms": max(0, round((outcome.ended_at - outcome.started_at) * 1000)),
        "output": step.output,
    }
