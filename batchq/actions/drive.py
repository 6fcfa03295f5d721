"""Drives a run to its end: on a stack of our own, or on a broker where others work on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from batchq.actions.follow import Ended, Follower
from batchq.actions.wishes import Driven, Task, Wishes
from batchq.embedded.pools import simulators_of, with_base_urls
from batchq.embedded.stack import Stack
from batchq.errors import QueueError, UsageError
from batchq.monitoring.keptletters import keep_letters
from batchq.monitoring.notify import send_all
from batchq.plan import Plan
from batchq.ports import RunInfo
from batchq.progress import RunState
from batchq.services import COMMAND_PATIENCE_S, Services, build_services
from batchq.settings import Settings

# When a run is over nothing is in flight, and every file is written: nobody waits for workers
# that sleep on an empty queue.
STOP_IDLE_GRACE_S = 0.1
NOTICES_PATIENCE_S = 4.0
"""For so long the end of a run waits for its webhooks; then the next run tells them."""


def run_on_stack(
    task: Task, stack: Stack, simulators: Mapping[str, Path], wishes: Wishes
) -> Driven:
    """Runs on processes that are ours, so that a Ctrl-C pauses the run."""
    services = build_services(stack.settings, patience_s=COMMAND_PATIENCE_S)
    info = task.begin(services)
    stack.serve_run(info.run)
    stack.wait_for_redis()
    urls = {name: stack.read_url(log) for name, log in simulators.items()}
    task.go(replace(info, plan=with_base_urls(info.plan, urls)), services)
    with wishes.make_view() as view:
        view.note(f"{_name(info)} in {info.folder}")
        follower = Follower(
            run=info.run,
            services=services,
            view=view,
            interrupts=wishes.interrupts,
            pauses=True,
            brings_workers=stack.is_private,
            check=stack.check,
            timeout_s=wishes.timeout_s,
        )
        ended = follower.follow()
    wishes.report(ended)
    _tell_hooks(info, services, wishes)
    is_unfinished = ended.progress.state is RunState.PAUSED
    stack.stop(STOP_IDLE_GRACE_S, keep_data=is_unfinished)
    return Driven(info, ended)


def _tell_hooks(info: RunInfo, services: Services, wishes: Wishes) -> None:
    """Sends what is in the outbox while there is a Redis that it is in, and keeps the rest."""
    if info.plan.notify and not send_all(info.run, services, NOTICES_PATIENCE_S):
        count = keep_letters(info, services)
        wishes.make_view().note(
            f"{count} of the webhooks of {_name(info)} did not answer within "
            f"{NOTICES_PATIENCE_S:g} s; the next run here tells them. Why is in `batchq logs "
            f"{_name(info)}`"
        )


def run_elsewhere(task: Task, settings: Settings, wishes: Wishes) -> Driven:
    """Queues a run on the broker and follows it, unless it is to be left alone."""
    if wishes.detach:
        _require_detachable(task.plan)
    services = build_services(settings, patience_s=COMMAND_PATIENCE_S)
    with wishes.interrupts:
        info = task.begin(services)
        task.go(info, services)
        if wishes.detach:
            return Driven(info, None)
        return Driven(info, follow_elsewhere(info.run, _name(info), services, wishes))


def follow_elsewhere(run: str, name: str, services: Services, wishes: Wishes) -> Ended:
    """Follows a run that goes on without us, and reports its end if it is seen."""
    with wishes.make_view() as view:
        follower = Follower(
            run=run,
            services=services,
            view=view,
            interrupts=wishes.interrupts,
            pauses=False,
            timeout_s=wishes.timeout_s,
        )
        ended = follower.follow()
    if ended.is_over:
        wishes.report(ended)
    else:
        view.note(f"{name} goes on. Follow it with `batchq watch {name}`")
    return ended


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
            "one with `batchq simulator --port 8089` and give its URL as base_url, or wait for "
            "the end"
        )


def _name(info: RunInfo) -> str:
    return f"{info.pipeline}@{info.version}"


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
