"""`batchq approve`."""

from __future__ import annotations

from dataclasses import replace

import click

from batchq.cli.following import (
    Following,
    following_options,
    resume_task,
    run_task,
    with_budget,
)
from batchq.cli.output import say
from batchq.cli.request import budget_options, concurrency_option
from batchq.errors import UsageError


@click.command("approve")
@click.argument("run")
@concurrency_option
@budget_options
@following_options
def approve_command(
    run: str,
    concurrency: int | None,
    max_cost: int | None,
    max_tokens: int | None,
    following: Following,
) -> int:
    """Lets RUN go on that stands still after its first items (`canary`)."""
    from batchq.canary import canary_text, rest_text
    from batchq.lookup import find_resumable
    from batchq.runs import open_folder
    from batchq.store.canary import read_canary, write_canary

    info = find_resumable(run, following.settings)
    if info is None:
        say(f"{run} is complete: nothing to do")
        return 0
    info = with_budget(info, max_cost, max_tokens)
    folder = open_folder(info.folder)
    report = read_canary(folder)
    if report is None or report.is_decided:
        raise UsageError(f"{run} does not wait for a word; `batchq resume {run}` goes on with it")
    write_canary(folder, replace(report, state="approved"))
    say(f"canary: {canary_text(report)}")
    say(rest_text(report))
    return run_task(resume_task(info, following.settings), following, concurrency)
