"""`batchq approve`."""

from __future__ import annotations

import click

from batchq.actions.acts import approve
from batchq.cli.following import (
    Following,
    following_options,
    resume_task,
    run_task,
    with_budget,
)
from batchq.cli.output import say
from batchq.cli.request import budget_options, concurrency_option


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
    from batchq.actions.lookup import find_resumable
    from batchq.engine.canary import canary_text, rest_text

    info = find_resumable(run, following.settings)
    if info is None:
        say(f"{run} is complete: nothing to do")
        return 0
    info = with_budget(info, max_cost, max_tokens)
    report = approve(info)
    say(f"canary: {canary_text(report)}")
    say(rest_text(report))
    return run_task(resume_task(info, following.settings), following, concurrency)
