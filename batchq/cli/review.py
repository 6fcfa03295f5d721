"""`batchq label`, `mark` and `failures`: what people think of results, and what broke."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from batchq.actions import acts
from batchq.actions.asjson import group_json
from batchq.cli.output import count, put, put_json, say
from batchq.cli.request import json_option
from batchq.services import COMMAND_PATIENCE_S, build_services
from batchq.settings import load_settings

if TYPE_CHECKING:
    from batchq.report.failures import FailureGroup

_MAX_MESSAGE = 300


@click.command("label")
@click.argument("pipeline")
@click.argument("version", metavar="vN")
@click.argument("label", metavar="STATUS")
@click.option("--note", metavar="T", help="Replaces the note that is kept with the version.")
def label_command(pipeline: str, version: str, label: str, note: str | None) -> None:
    """Says how mature version vN of PIPELINE is: draft, alpha, beta, rc, final, deprecated.

    Own words do too. A complete version that is final is read-only: it cannot be retried and its
    items cannot be marked until it gets another label.
    """
    from batchq.cli.versions import find_version
    from batchq.manifest.labels import FINAL, check_label

    check_label(label)
    services = build_services(load_settings(), patience_s=COMMAND_PATIENCE_S)
    record, found = find_version(f"{pipeline}@{version}", services)
    acts.label(record, found, label, note, services)
    was = f" (was {record.status})" if record.status != label else ""
    put(f"{found.name} is {label}{was}")
    if label == FINAL != record.status:
        say("It is read-only now; another label opens it again.")
    elif record.status == FINAL != label:
        say("It can be changed again.")


@click.command("mark")
@click.argument("run")
@click.argument("item")
@click.argument("verdict", type=click.Choice(["good", "bad"]))
@click.option("--note", metavar="T", default="", help="Why.")
def mark_command(run: str, item: str, verdict: str, note: str) -> None:
    """Marks ITEM of RUN as good or bad; `batchq rerun --marked bad` redoes the bad ones."""
    from batchq.cli.versions import find_version

    services = build_services(load_settings(), patience_s=COMMAND_PATIENCE_S)
    record, found = find_version(run, services)
    name = acts.mark(record, found, item, verdict, note)
    put(f"{found.name}: {name} is marked {verdict}" + (f": {note}" if note else ""))


@click.command("failures")
@click.argument("run")
@json_option
def failures_command(run: str, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Groups what failed in RUN by its cause, with one sample each.

    Messages that differ in numbers, ids, quotes and paths alone are one cause.
    """
    from batchq.cli.versions import find_version
    from batchq.runs.review import failures_of

    services = build_services(load_settings(), patience_s=COMMAND_PATIENCE_S)
    _, found = find_version(run, services)
    groups = failures_of(found)
    if as_json:
        put_json({"run": found.name, "groups": [group_json(group) for group in groups]})
        return
    if not groups:
        say(f"{found.name}: nothing has failed")
        return
    total = sum(group.count for group in groups)
    put(f"{found.name}: {count(total, 'failure')} of {count(len(groups), 'cause')}")
    for group in groups:
        put()
        for line in _group_lines(group):
            put(line)


def _group_lines(group: FailureGroup) -> list[str]:
    from batchq.cli.comparison import MAX_PARTS, shorten
    from batchq.runs.compare import id_ranges

    rest = group.count - len(group.item_ids)
    ids = id_ranges(group.item_ids, MAX_PARTS)
    where = f"in {', '.join(group.steps)}"
    return [
        f"{group.fingerprint}  {count(group.count, 'item')}  {group.kind}  {where}",
        f"  {shorten(group.pattern, _MAX_MESSAGE)}",
        f"  such as {group.sample.item_id}: {shorten(group.sample.error.message, _MAX_MESSAGE)}",
        f"  items: {ids}" + (f" and {rest:,} more" if rest > 0 and " more" not in ids else ""),
        f"  a retry {'can' if group.can_retry else 'will not'} help: {group.advice}",
    ]
