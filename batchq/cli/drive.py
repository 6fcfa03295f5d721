"""Drives a run to its end: on a stack of our own, or on a broker where others work on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from batchq.cli.display import make_view
from batchq.cli.follow import Ended, Follower
from batchq.cli.interrupts import Interrupts
from batchq.cli.output import put, put_json, say
from batchq.cli.summary import as_json as progress_json
from batchq.cli.summary import summary_lines
from batchq.cli.wishes import Task, Wishes
from batchq.embedded.pools import simulators_of, with_base_urls
from batchq.embedded.stack import Stack
from batchq.errors import QueueError, UsageError
from batchq.plan import Plan
from batchq.ports import RunInfo, RunState
from batchq.services import COMMAND_PATIENCE_S, Services, build_services
from batchq.settings import Settings

# When a run is over nothing is in flight, and every file is written: nobody waits for workers
# that sleep on an empty queue.
STOP_IDLE_GRACE_S = 0.1


def run_on_stack(
    task: Task,
    stack: Stack,
    simulators: Mapping[str, Path],
    interrupts: Interrupts,
    wishes: Wishes,
) -> int:
    """Runs on processes that are ours, so that a Ctrl-C pauses the run; returns the exit code."""
    services = build_services(stack.settings, patience_s=COMMAND_PATIENCE_S)
    info = task.begin(services)
    stack.serve_run(info.run)
    stack.wait_for_redis()
    urls = {name: stack.read_url(log) for name, log in simulators.items()}
    task.go(replace(info, plan=with_base_urls(info.plan, urls)), services)
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


def run_elsewhere(task: Task, settings: Settings, wishes: Wishes) -> int:
    """Queues a run on the broker and follows it, unless it is to be left alone."""
    if wishes.detach:
        _require_detachable(task.plan)
    services = build_services(settings, patience_s=COMMAND_PATIENCE_S)
    with Interrupts() as interrupts:
        info = task.begin(services)
        task.go(info, services)
        if not wishes.detach:
            return follow_elsewhere(info.run, _name(info), services, interrupts, wishes)
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


def report(ended: Ended, *, as_json: bool) -> None:
    """Says how a run ended."""
    if as_json:
        put_json({**progress_json(ended.progress), "exit_code": ended.code})
        return
    for line in summary_lines(ended.progress):
        put(line)


def has_coordinator(settings: Settings) -> bool:
    """Whether a coordinator is alive; fails before anything is written if Redis is away."""
    try:
        alive = build_services(settings, patience_s=COMMAND_PATIENCE_S).ledger.alive()
        return any(one["role"] == "coordinator" for one in alive.values())
    except QueueError as error:
        raise QueueError(
            f"{error}\nBATCHQ_BROKER_URL is {_without_password(settings.broker_url)}: start that "
            "Redis, mend the URL, or unset it to use the embedded stack."
        ) from error


def _require_detachable(plan: Plan) -> None:
    if simulators := simulators_of(plan):
        raise UsageError(
            f"provider {', '.join(simulators)}: its simulator would end with this command. Start "
            "one with `batchq simulator --port 8089` and give its URL as base_url, or leave "
            "--detach out"
        )


def _name(info: RunInfo) -> str:
    return f"{info.pipeline}@{info.version}"


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
