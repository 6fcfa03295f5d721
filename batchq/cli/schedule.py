"""`batchq schedule`: manifests that are submitted by themselves."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchq.cli.output import local_time, put, put_json, say, table
from batchq.cli.request import json_option, load_request, manifest_argument, params_option
from batchq.errors import RunNotFound, UsageError

if TYPE_CHECKING:
    from batchq.ledger import RedisSchedules
    from batchq.ledger.schedules import Due

SHOWN_TIMES = 3


@click.group("schedule")
def schedule_command() -> None:
    """Submits manifests at the times that their `schedule` names.

    The coordinators of the broker do it, from the folder where they were applied.
    """


@schedule_command.command("apply")
@manifest_argument
@params_option
def apply_command(file: Path, params: tuple[tuple[str, str], ...]) -> None:
    """Has FILE submitted at the times of its `schedule`, in place of what was applied before."""
    from batchq.ledger.schedules import Entry
    from batchq.manifest.timetable import times
    from batchq.planning.planner import make_plan

    manifest = load_request(file, params=params)
    if manifest.schedule is None:
        raise UsageError(f"{file}: no `schedule`; add one: schedule: {{cron: '0 2 * * *'}}")
    if (manifest.rounds or 1) > 1:
        raise UsageError(f"{file}: rounds are followed by whoever submits them: schedule one round")
    wanted = manifest.schedule
    name = make_plan(manifest).pipeline
    arguments = [word for key, value in params for word in ("-p", f"{key}={value}")]
    entry = Entry(
        name=name,
        file=str(file.absolute()),
        folder=str(Path.cwd()),
        cron=wanted.cron,
        timezone=wanted.timezone,
        overlap=wanted.overlap,
        arguments=arguments,
        host=socket.gethostname(),
    )
    coming = list(islice(times(wanted.cron, wanted.timezone, time.time()), SHOWN_TIMES))
    is_new = _schedules().put(entry, coming[0])
    say(f"{name} {'is' if is_new else 'is now'} submitted at {wanted.cron} ({wanted.timezone}):")
    for at in coming:
        put(_local(at))


@schedule_command.command("list")
@json_option
def list_command(as_json: bool) -> None:  # noqa: FBT001 (click passes by name)
    """Lists what is submitted by itself: when next, and what became of the last time."""
    found = _schedules().all()
    if as_json:
        put_json([_plain(one) for one in found])
    elif found:
        rows = [(one.entry.name, _local(one.at), f"{one.entry.cron} {one.entry.timezone}",
                 _last(one)) for one in found]  # fmt: skip
        for line in table([("PIPELINE", "NEXT", "CRON", "LAST"), *rows]):
            put(line)
    else:
        say("nothing is scheduled: `batchq schedule apply FILE`")


@schedule_command.command("remove")
@click.argument("name")
def remove_command(name: str) -> None:
    """Submits NAME no more; its runs stay."""
    schedules = _schedules()
    if not schedules.remove(name):
        known = ", ".join(one.entry.name for one in schedules.all()) or "nothing is"
        raise RunNotFound(f"{name} is not scheduled; {known}")
    say(f"{name} is submitted by itself no more")


def _schedules() -> RedisSchedules:
    from batchq.services import COMMAND_PATIENCE_S, build_services
    from batchq.settings import load_settings

    return build_services(load_settings(), patience_s=COMMAND_PATIENCE_S).schedules


def _plain(due: Due) -> dict[str, Any]:
    entry, last = due.entry, due.last
    return {
        "pipeline": entry.name,
        "file": entry.file,
        "folder": entry.folder,
        "host": entry.host,
        "arguments": list(entry.arguments),
        "cron": entry.cron,
        "timezone": entry.timezone,
        "overlap": entry.overlap,
        "next": _iso(due.at),
        "last": {**last, "at": _iso(last["at"])} if last else None,
    }


def _last(due: Due) -> str:
    last = due.last
    if not last:
        return "-"
    what = last["name"]
    if last["error"]:
        what = f"failed: {last['error'].splitlines()[-1]}"
    elif last["skipped"]:
        what = f"skipped: {last['skipped']}"
    missed = f", {last['missed']} missed before" if last["missed"] else ""
    return f"{_local(last['at'])} {what}{missed}"


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def _local(at: float) -> str:
    return local_time(_iso(at))
