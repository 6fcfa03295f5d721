"""How commands start a run, or take one up again, and follow it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from batchq.actions import launch
from batchq.actions.launch import settings_for
from batchq.actions.wishes import Driven, Task
from batchq.cli.report import put_queued, wishes_of
from batchq.cli.request import json_option
from batchq.settings import Settings

if TYPE_CHECKING:
    from batchq.ports import RunInfo
    from batchq.services import Services

F = TypeVar("F", bound=Callable[..., Any])

_FOLLOWING = (
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


@dataclass(frozen=True, slots=True)
class Following:
    """How a run is started and followed: the options that these commands share."""

    workers: int | None
    detach: bool
    wait: bool
    timeout: float | None
    local: bool
    as_json: bool

    @property
    def settings(self) -> Settings:
        """The settings; with `--local` those of the embedded stack, broker or not."""
        return settings_for(local=self.local)


def following_options(function: F) -> F:
    """Adds the options that say how a run is started and followed, as one `following`."""

    @functools.wraps(function)
    def command(*args: Any, **options: Any) -> Any:
        shared = {field.name: options.pop(field.name) for field in fields(Following)}
        return function(*args, following=Following(**shared), **options)

    for option in reversed(_FOLLOWING):
        command = option(command)
    return cast("F", command)


def with_budget(info: RunInfo, max_cost: int | None, max_tokens: int | None) -> RunInfo:
    """A run with other amounts in its budget, where they are given."""
    from batchq.planning.caps import changed_budget

    budget = changed_budget(info.plan.budget, max_cost, max_tokens, info.plan.steps)
    return replace(info, plan=replace(info.plan, budget=budget))


def start_run(info: RunInfo, services: Services) -> None:
    """Hands a new run to its coordinator."""
    from batchq.queue.control import start

    start(info, services)


def resume_task(info: RunInfo, settings: Settings) -> Task:
    """Goes on with a run as it is."""
    return Task(info.plan, lambda _: info, resume_on(settings), before=info.run)


def resume_on(settings: Settings) -> Callable[[RunInfo, Services], None]:
    """How a run is handed to its coordinator again."""

    def go(info: RunInfo, services: Services) -> None:
        from batchq.queue.control import resume

        resume(info, services, is_private=not settings.broker_url)

    return go


def run_task(task: Task, following: Following, concurrency: int | None) -> int:
    """Begins a run, or takes it up again, and follows it; returns the exit code."""
    driven = drive_task(task, following, concurrency)
    if driven.ended is None:
        put_queued(driven.info, as_json=following.as_json)
        return 0
    return driven.ended.code


def drive_task(task: Task, following: Following, concurrency: int | None) -> Driven:
    """Begins a run, or takes it up again, and follows it."""
    wishes = wishes_of(
        concurrency,
        following.workers,
        detach=following.detach,
        quiet=following.wait or following.as_json,
        as_json=following.as_json,
        timeout_s=following.timeout,
    )
    return launch.run_task(task, following.settings, wishes)
