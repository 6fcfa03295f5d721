"""`batchq logs`: what the processes of a run said."""

from __future__ import annotations

import time
from pathlib import Path

import click

from batchq.actions.lookup import Found, find
from batchq.cli.output import put, say
from batchq.embedded.stack import find_folder, live_broker_url
from batchq.errors import RunNotFound
from batchq.host.interrupts import Interrupts
from batchq.records import iso
from batchq.runs.life import open_folder
from batchq.settings import load_settings


@click.command("logs")
@click.argument("run")
@click.argument("item", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run's processes end.")
def logs_command(run: str, item: str | None, follow: bool) -> None:  # noqa: FBT001 (click)
    """Shows what happened in RUN and what its workers logged, or only what names ITEM.

    Workers of the embedded stack, that is: those on a broker log where they run.
    """
    settings = load_settings()
    found = find(run, settings)
    told = _put_events(found, item)
    folder = find_folder(settings.home, found.run)
    if folder is None:
        if not told:
            raise RunNotFound(
                f"{found.name} left no logs here: its workers ran elsewhere, or the logs are gone"
            )
        return
    places: dict[Path, int] = {}
    with Interrupts() as interrupts:
        while True:
            _put_new_lines(folder / "logs", places, item)
            if not follow or interrupts.is_set or not live_broker_url(settings.home, found.run):
                break
            time.sleep(0.2)
    if not told and not any(places.values()):
        say(f"{found.name} logged nothing")


def _put_events(found: Found, item: str | None) -> int:
    """Prints the run's own events; returns how many there are."""
    if found.record is None:
        return 0
    number = 0
    for event in open_folder(found.record.folder).read_log():
        number += 1
        fields = {key: value for key, value in event.items() if key not in ("ts", "event", "level")}
        words = " ".join(f"{key}={value}" for key, value in fields.items() if value != "")
        if item is None or item in words:
            put(f"run: {iso(event['ts'])} {event['level']} {event['event']} {words}".rstrip())
    return number


def _put_new_lines(logs: Path, places: dict[Path, int], item: str | None) -> None:
    for path in sorted(logs.glob("*.log")):
        with path.open("rb") as file:
            file.seek(places.get(path, 0))
            whole = file.read().rpartition(b"\n")
            places[path] = places.get(path, 0) + len(whole[0]) + len(whole[1])
        for line in whole[0].decode("utf-8", errors="replace").splitlines():
            if item is None or item in line:
                put(f"{path.stem}: {line}")
