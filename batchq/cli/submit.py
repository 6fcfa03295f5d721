"""`batchq submit`, `resume` and `retry`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batchq import launch
from batchq.cli.manifests import show_plan, slots_of
from batchq.cli.output import say
from batchq.cli.report import put_queued, wishes_of
from batchq.cli.request import choice_options, json_option, load_request, manifest_argument
from batchq.errors import UsageError
from batchq.launch import settings_for
from batchq.preflight import require_keys
from batchq.settings import Settings
from batchq.wishes import Task, Wishes

if TYPE_CHECKING:
    from batchq.outcome import Outcome
    from batchq.ports import RunInfo
    from batchq.services import Services

F = TypeVar("F", bound=Callable[..., Any])

_WISHES = (
    click.option("--workers", type=click.IntRange(min=1), help="Processes for Python steps."),
    click.option("--detach", is_flag=True, help="Queue the run and return; needs a broker."),
    click.option("--wait", is_flag=True, help="Wait for the end without showing progress."),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="S",
        help="Stop after S seconds.",
    ),
    click.option("--local", is_flag=True, help="Use the embedded stack, broker or not."),
    json_option,
)


def wish_options(function: F) -> F:
    """Adds the options that say how a run is started and followed."""
    for option in reversed(_WISHES):
        function = option(function)
    return function


@click.command("submit")
@manifest_argument
@choice_options
@wish_options
@click.option("--dry-run", is_flag=True, help="Show the plan and queue nothing.")
def submit_command(
    file: Path,
    concurrency: int | None,
    workers: int | None,
    detach: bool,  # noqa: FBT001 (click passes by name, here and below)
    wait: bool,  # noqa: FBT001
    timeout: float | None,
    local: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
    dry_run: bool,  # noqa: FBT001
    **choices: Any,
) -> int:
    """Runs the manifest FILE as a new version and follows it.

    Without BATCHQ_BROKER_URL a private Redis and workers are started and stopped again; Ctrl-C
    pauses the run. With it the run is queued there; Ctrl-C only stops the looking.
    """
    from batchq.planner import make_plan

    settings = settings_for(local=local)
    manifest = load_request(file, concurrency=concurrency, **choices)
    plan = make_plan(manifest, slots=slots_of(concurrency, workers))
    if dry_run:
        show_plan(plan, as_json=as_json)
        return 0
    if not settings.broker_url:
        # On a broker the calls are made elsewhere, with keys of their own.
        require_keys(manifest, plan)
    for warning in plan.warnings:
        say(f"warning: {warning}")

    def begin(services: Services) -> RunInfo:
        from batchq.lock import manifest_lock
        from batchq.runs import create_run

        return create_run(plan, manifest_lock(manifest, plan), services, now=time.time())

    def go(info: RunInfo, services: Services) -> None:
        from batchq.queue.control import start

        start(info, services)

    wishes = wishes_of(
        concurrency,
        workers,
        detach=detach,
        quiet=wait or as_json,
        as_json=as_json,
        timeout_s=timeout,
    )
    return run_task(Task(plan, begin, go), settings, wishes, as_json=as_json)


@click.command("resume")
@click.argument("run")
@click.option("--concurrency", type=click.IntRange(min=1), help="Calls at a time.")
@click.option(
    "--accept-drift", is_flag=True, help="Go on though files changed; the frozen ones are used."
)
@wish_options
def resume_command(
    run: str,
    concurrency: int | None,
    accept_drift: bool,  # noqa: FBT001
    workers: int | None,
    detach: bool,  # noqa: FBT001
    wait: bool,  # noqa: FBT001
    timeout: float | None,
    local: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> int:
    """Goes on with RUN where it stopped: same version, the items that have not run."""
    from batchq.lookup import find_resumable

    settings = settings_for(local=local)
    info = find_resumable(run, settings)
    if info is None:
        say(f"{run} is complete: nothing to do")
        return 0
    if not accept_drift:
        _refuse_drift(info)

    def go(info: RunInfo, services: Services) -> None:
        from batchq.queue.control import resume

        resume(info, services, is_private=not settings.broker_url)

    wishes = wishes_of(
        concurrency,
        workers,
        detach=detach,
        quiet=wait or as_json,
        as_json=as_json,
        timeout_s=timeout,
    )
    return run_task(
        Task(info.plan, lambda _: info, go, before=info.run), settings, wishes, as_json=as_json
    )


@click.command("retry")
@click.argument("run")
@click.option("--kind", metavar="KIND", help="Only those that failed so: rate_limit, timeout, ...")
@click.option("--dry-run", is_flag=True, help="Say what would be retried and do nothing.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Calls at a time.")
@wish_options
def retry_command(
    run: str,
    kind: str | None,
    dry_run: bool,  # noqa: FBT001
    concurrency: int | None,
    workers: int | None,
    detach: bool,  # noqa: FBT001
    wait: bool,  # noqa: FBT001
    timeout: float | None,
    local: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> int:
    """Runs the items of RUN that failed once more, in the same version.

    Items of later steps that now have an input run, too.
    """
    from batchq.lookup import find_over, kinds_of_failures
    from batchq.runs import load_run, reopen_run

    settings = settings_for(local=local)
    record = find_over(run, settings)
    name = f"{record.pipeline}@{record.version}"
    kinds = kinds_of_failures(record)
    total = kinds[kind] if kind else sum(kinds.values())
    found = ", ".join(f"{number} {word}" for word, number in kinds.most_common()) or "none"
    if not total:
        say(f"{name}: nothing to retry (failed items: {found})")
        return 0
    say(f"{'would retry' if dry_run else 'retrying'} {total} of {name} (failed items: {found})")
    if dry_run:
        return 0

    def begin(services: Services) -> RunInfo:
        def is_again(outcome: Outcome) -> bool:
            return outcome.error is not None and kind in (None, outcome.error.kind)

        return reopen_run(record, is_again, services)

    def go(info: RunInfo, services: Services) -> None:
        from batchq.queue.control import resume

        resume(info, services, is_private=not settings.broker_url)

    wishes = wishes_of(
        concurrency,
        workers,
        detach=detach,
        quiet=wait or as_json,
        as_json=as_json,
        timeout_s=timeout,
    )
    return run_task(
        Task(load_run(record).plan, begin, go, before=record.run), settings, wishes, as_json=as_json
    )


def _refuse_drift(info: RunInfo) -> None:
    from batchq.drift import find_drift

    if found := find_drift(info.plan):
        changes = "\n".join(f"  {one}" for one in found)
        raise UsageError(
            f"since {info.pipeline}@{info.version} was submitted:\n{changes}\n"
            "--accept-drift goes on with what was frozen then; to use the new files, submit them "
            "as a new version, or `batchq rerun --manifest`"
        )


def run_task(task: Task, settings: Settings, wishes: Wishes, *, as_json: bool) -> int:
    """Begins a run, or takes it up again, and follows it; returns the exit code."""
    driven = launch.run_task(task, settings, wishes)
    if driven.ended is None:
        put_queued(driven.info, as_json=as_json)
        return 0
    return driven.ended.code
