"""Starts what a run needs, here or not at all, and drives it to its end.

What only a started run needs is imported after its workers are on their way, in `drive`.
"""

from __future__ import annotations

from batchq.actions.wishes import Driven, Task, Wishes
from batchq.embedded.pools import (
    launch_coordinator,
    launch_simulators,
    launch_workers,
    pools_of,
    simulators_of,
)
from batchq.embedded.stack import start_stack
from batchq.errors import UsageError
from batchq.settings import Settings, load_settings


def settings_for(*, local: bool) -> Settings:
    """The settings; with `local` those of the embedded stack, broker or not."""
    settings = load_settings()
    return settings.model_copy(update={"broker_url": ""}) if local else settings


def run_task(task: Task, settings: Settings, wishes: Wishes) -> Driven:
    """Begins a run, or takes it up again, and follows it.

    Raises UsageError for a run that is to be left to others where there are none.
    """
    lacks_coordinator = False
    if settings.broker_url:
        from batchq.actions.drive import has_coordinator, run_elsewhere

        lacks_coordinator = not has_coordinator(settings)
        if wishes.detach or not (lacks_coordinator or simulators_of(task.plan)):
            return run_elsewhere(task, settings, wishes)
    elif wishes.detach:
        raise UsageError(
            "to leave a run alone takes workers that go on by themselves: set BATCHQ_BROKER_URL, "
            "or wait for its end (without --detach)"
        )
    with wishes.interrupts, start_stack(settings, task.before) as stack:
        if task.before and not settings.broker_url:
            from batchq.queue.control import quiesce
            from batchq.services import COMMAND_PATIENCE_S, build_services

            stack.wait_for_redis()
            quiesce(task.before, build_services(stack.settings, patience_s=COMMAND_PATIENCE_S))
        simulators = launch_simulators(stack, task.plan)  # first: workers wait for their imports
        if not settings.broker_url:
            slots = {"concurrency": wishes.concurrency, "workers": wishes.workers}
            launch_workers(stack, task.plan, pools_of(task.plan, **slots))
        elif lacks_coordinator:
            wishes.make_view().note(
                "no coordinator is alive on this broker: this process has one until the run ends"
            )
            launch_coordinator(stack, task.plan)
        from batchq.actions.drive import run_on_stack

        return run_on_stack(task, stack, simulators, wishes)
