"""Submits manifests when their time has come: what coordinators do besides runs."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from itertools import islice, takewhile

from batchq.ledger.schedules import Entry
from batchq.manifest.timetable import times
from batchq.progress import RunState
from batchq.services import Services

log = logging.getLogger(__name__)

LATE_S = 300.0
"""A time that passed longer ago than this is told as missed, and not made up for."""

_SUBMIT_S = 600.0
_COUNTED = 1000


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a time: the newest run, and why there is no newer one.

    `missed` are the times before it that nobody was there for.
    """

    at: float
    run: str = ""
    name: str = ""
    skipped: str = ""
    error: str = ""
    missed: int = 0


def submit_due(services: Services, now: float) -> None:
    """Submits what is due.

    Each time is taken by one coordinator, before anything is done: one that dies after that
    leaves it out, and none is submitted twice.
    """
    for due in services.schedules.all():
        if due.at > now:
            return
        entry = due.entry
        next_at = next(times(entry.cron, entry.timezone, now))
        if not services.schedules.take(due, next_at):
            continue
        after = times(entry.cron, entry.timezone, due.at)
        *missed, at = due.at, *takewhile(lambda moment: moment <= now, islice(after, _COUNTED))
        before = Result(at, due.last.get("run", ""), due.last.get("name", ""), missed=len(missed))
        if now - at > LATE_S:
            result = replace(before, skipped="no coordinator was there")
        else:
            result = _submit(entry, before, services)
        level = logging.INFO if result.run != before.run and not missed else logging.WARNING
        log.log(level, "schedule of %s: %s", entry.name, result)
        services.schedules.tell(entry.name, asdict(result))


def _submit(entry: Entry, before: Result, services: Services) -> Result:
    state = services.ledger.state(before.run) if before.run else None
    is_under_way = state is not None and (not state.is_over or state is RunState.PAUSED)
    if entry.overlap == "skip" and is_under_way:
        return replace(before, skipped=f"{before.name} was {state}")
    command = [sys.executable, "-m", "batchq", "submit", entry.file, "--detach", "--json"]
    env = {**os.environ, "BATCHQ_BROKER_URL": services.settings.broker_url}
    try:
        done = subprocess.run(  # noqa: S603 (our own command line, no shell)
            [*command, *entry.arguments],
            cwd=entry.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SUBMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return replace(before, error=str(error))
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        return replace(before, error=said or f"exit {done.returncode}")
    told = json.loads(done.stdout)
    return replace(before, run=told["run"], name=f"{told['pipeline']}@{told['version']}")
