"""`batchq submit` and `batchq resume`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from batchq.cli.display import make_view
from batchq.cli.follow import Ended, Follower
from batchq.cli.interrupts import Interrupts
from batchq.cli.lookup import find
from batchq.cli.manifests import show_plan, slots_of
from batchq.cli.output import put, put_json, say
from batchq.cli.request import choice_options, json_option, load_request, manifest_argument
from batchq.cli.summary import as_json, summary_lines
from batchq.embedded.pools import (
    launch_workers,
    pools_of,
    simulators_of,
    with_base_urls,
)
from batchq.embedded.stack import Stack, start_stack
from batchq.errors import QueueError, UsageError
from batchq.plan import Plan
from batchq.ports import RunInfo, RunState
from batchq.queue.control import resume, start
from batchq.runs import create_run, load_run
from batchq.services import COMMAND_PATIENCE_S, Services, build_services
from batchq.settings import Settings, load_settings

STOP_IDLE_GRACE_S = 0.1
"""For workers that have nothing in flight."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a run is started and followed."""

    concurrency: int | None = None
    workers: int | None = None
    detach: bool = False
    quiet: bool = False
    as_json: bool = False
    timeout_s: float | None = None


_WISHES = (
    click.option("--workers", type=click.IntRange(min=1), help="Processes for Python steps."),
    click.option("--detach", is_flag=True, help="Queue the run and return; needs a broker."),
    click.option("--wait", is_flag=True, help="Wait for the end without showing progress."),
    click.option(
        "--timeout", type=click.FloatRange(min=0, min_open=True), help="Stop after S seconds."
    ),
    click.option("--local", is_flag=True, help="Use the embedded stack, broker or not."),
    json_option,
)


def _wish_options(function: Any) -> Any:
    for option in reversed(_WISHES):
        function = option(function)
    return function


@click.command("submit")
@manifest_argument
@choice_options
@_wish_options
@click.option("--dry-run", is_flag=True, help="Show the plan and queue nothing.")
def submit_command(
    file: Path,
    concurrency: int | None,
    workers: int | None,
    detach: bool,  # noqa: FBT001 (click passes by name)
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
    from batchq.lock import manifest_lock
    from batchq.planner import make_plan

    settings = _settings(local)
    manifest = load_request(file, concurrency=concurrency, **choices)
    plan = make_plan(manifest, slots=slots_of(concurrency, workers))
    if dry_run:
        show_plan(plan, as_json=as_json)
        return 0
    for warning in plan.warnings:
        say(f"warning: {warning}")
    wishes = Wishes(concurrency, workers, detach, wait or as_json, as_json, timeout)
    lock_text = manifest_lock(manifest, plan)

    def begin(services: Services) -> RunInfo:
        return create_run(plan, lock_text, services, now=time.time())

    def go(info: RunInfo, services: Services) -> None:
        start(info, services)

    return _run(plan, begin, go, settings, wishes)


@click.command("resume")
@click.argument("run")
@click.option("--concurrency", type=click.IntRange(min=1), help="Calls at a time.")
@_wish_options
def resume_command(
    run: str,
    concurrency: int | None,
    workers: int | None,
    detach: bool,  # noqa: FBT001 (click passes by name)
    wait: bool,  # noqa: FBT001
    timeout: float | None,
    local: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> int:
    """Goes on with RUN where it stopped: same version, the items that have not run."""
    settings = _settings(local)
    found = find(run, settings)
    if found.record is None:
        raise UsageError(f"{run} was submitted elsewhere: resume it where its folder is")
    if found.record.state is RunState.COMPLETED:
        say(f"{found.name} is complete: nothing to do")
        return 0
    info = load_run(found.record)
    wishes = Wishes(concurrency, workers, detach, wait or as_json, as_json, timeout)
    is_private = not settings.broker_url

    def go(info: RunInfo, services: Services) -> None:
        resume(info, services, is_private=is_private)

    return _run(info.plan, lambda _: info, go, settings, wishes, before=info.run)


def _settings(local: bool) -> Settings:  # noqa: FBT001 (one flag, handed through)
    settings = load_settings()
    return settings.model_copy(update={"broker_url": ""}) if local else settings


def _run(
    plan: Plan,
    begin: Callable[[Services], RunInfo],
    go: Callable[[RunInfo, Services], None],
    settings: Settings,
    wishes: Wishes,
    before: str = "",
) -> int:
    if settings.broker_url:
        _require_broker(settings)
    if wishes.detach:
        return _detach(plan, begin, go, settings, wishes)
    if settings.broker_url and not simulators_of(plan):
        services = build_services(settings, patience_s=COMMAND_PATIENCE_S)
        with Interrupts() as interrupts:
            info = begin(services)
            go(info, services)
            return follow_elsewhere(info.run, _name(info), services, interrupts, wishes)
    with Interrupts() as interrupts, start_stack(settings, before) as stack:
        if not settings.broker_url:
            pools = pools_of(plan, concurrency=wishes.concurrency, workers=wishes.workers)
            launch_workers(stack, plan, pools)
        return _run_on_stack(plan, begin, go, stack, interrupts, wishes)


def _run_on_stack(
    plan: Plan,
    begin: Callable[[Services], RunInfo],
    go: Callable[[RunInfo, Services], None],
    stack: Stack,
    interrupts: Interrupts,
    wishes: Wishes,
) -> int:
    simulators = {
        name: stack.launch_simulator(name, spec.simulator)
        for name, spec in simulators_of(plan).items()
    }
    services = build_services(stack.settings, patience_s=COMMAND_PATIENCE_S)
    info = begin(services)
    stack.serve_run(info.run)
    stack.wait_for_redis()
    urls = {name: stack.read_url(log) for name, log in simulators.items()}
    go(replace(info, plan=with_base_urls(info.plan, urls)), services)
    with make_view(quiet=wishes.quiet) as view:
        view.note(f"{_name(info)} in {info.folder}")
        follower = Follower(
            run=info.run,
            services=services,
            view=view,
            interrupts=interrupts,
            pauses=True,
            check=stack.check,
            timeout_s=wishes.timeout_s,
        )
        ended = follower.follow()
    report(ended, as_json=wishes.as_json)
    is_unfinished = ended.progress.state is RunState.PAUSED
    stack.stop(STOP_IDLE_GRACE_S, keep_data=is_unfinished)
    return ended.code


def _detach(
    plan: Plan,
    begin: Callable[[Services], RunInfo],
    go: Callable[[RunInfo, Services], None],
    settings: Settings,
    wishes: Wishes,
) -> int:
    if not settings.broker_url:
        raise UsageError(
            "--detach needs workers that go on by themselves: set BATCHQ_BROKER_URL, or leave "
            "--detach out"
        )
    if simulators := simulators_of(plan):
        raise UsageError(
            f"provider {', '.join(simulators)}: its simulator would end with this command. Start "
            "one with `batchq simulator --port 8089` and give its URL as base_url, or leave "
            "--detach out"
        )
    services = build_services(settings, patience_s=COMMAND_PATIENCE_S)
    info = begin(services)
    go(info, services)
    if wishes.as_json:
        put_json({"run": info.run, "pipeline": info.pipeline, "version": info.version})
    else:
        put(_name(info))
        say(f"Queued. Follow it with `batchq watch {_name(info)}`")
    return 0


def follow_elsewhere(
    run: str, name: str, services: Services, interrupts: Interrupts, wishes: Wishes
) -> int:
    """Follows a run that goes on without us, and reports its end if it is seen."""
    with make_view(quiet=wishes.quiet) as view:
        follower = Follower(
            run=run,
            services=services,
            view=view,
            interrupts=interrupts,
            pauses=False,
            timeout_s=wishes.timeout_s,
        )
        ended = follower.follow()
    if ended.is_over:
        report(ended, as_json=wishes.as_json)
    else:
        say(f"{name} goes on. Follow it with `batchq watch {name}`")
    return ended.code


def _name(info: RunInfo) -> str:
    return f"{info.pipeline}@{info.version}"


def report(ended: Ended, *, as_json: bool) -> None:
    """Says how a run ended."""
    if as_json:
        put_json(_as_json(ended))
        return
    for line in summary_lines(ended.progress):
        put(line)


def _as_json(ended: Ended) -> dict[str, Any]:
    return {**as_json(ended.progress), "exit_code": ended.code}


def _require_broker(settings: Settings) -> None:
    """Fails before anything is written if Redis is away."""
    try:
        build_services(settings, patience_s=COMMAND_PATIENCE_S).ledger.runs()
    except QueueError as error:
        raise QueueError(
            f"{error}\nBATCHQ_BROKER_URL is {_without_password(settings.broker_url)}: "
            "start that Redis, mend the URL, or unset it to use the embedded stack."
        ) from error


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
