"""`batchq watch`, `pause` and `cancel`: a run that somebody else works on."""

from __future__ import annotations

import click

from batchq.actions.acts import cancel, pause
from batchq.actions.drive import follow_elsewhere
from batchq.actions.exits import exit_code
from batchq.actions.follow import Ended
from batchq.actions.lookup import find, stays_alive
from batchq.cli.output import say
from batchq.cli.report import put_end, wishes_of
from batchq.cli.request import json_option
from batchq.errors import QueueError
from batchq.services import COMMAND_PATIENCE_S, build_services
from batchq.settings import load_settings


@click.command("watch")
@click.argument("run")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), help="Stop after S seconds."
)
@json_option
def watch_command(run: str, timeout: float | None, as_json: bool) -> int:  # noqa: FBT001 (click)
    """Follows RUN until it is over; Ctrl-C stops the looking only."""
    settings = load_settings()
    found = find(run, settings)
    if found.services is not None:
        wishes = wishes_of(quiet=as_json, as_json=as_json, timeout_s=timeout)
        try:
            with wishes.interrupts:
                return follow_elsewhere(found.run, found.name, found.services, wishes).code
        except QueueError:
            # A private Redis ends with its run; what became of that is in the folder by then.
            if found.record is None or stays_alive(found.run, settings):
                raise
        found = find(run, settings)
    seen = found.progress()
    code = exit_code(seen)
    put_end(Ended(seen, code, is_over=True), as_json=as_json)
    return code


@click.command("pause")
@click.argument("run")
def pause_command(run: str) -> None:
    """Starts no more items of RUN; what is in flight ends and is kept."""
    found = find(run, load_settings())
    pause(found)
    say(f"{found.name} is pausing. Go on with `batchq resume {found.name}`")


@click.command("cancel")
@click.argument("run")
def cancel_command(run: str) -> None:
    """Ends RUN early, also one that is paused; what is in flight ends, what is done is kept."""
    settings = load_settings()
    found = find(run, settings)
    is_over = cancel(found, build_services(settings, patience_s=COMMAND_PATIENCE_S))
    say(f"{found.name} is {'' if is_over else 'being '}cancelled")
