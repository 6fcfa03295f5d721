"""`batchq submit`, `resume` and `retry`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from batchq.actions.preflight import require_keys
from batchq.actions.wishes import Task
from batchq.cli.following import (
    Following,
    drive_task,
    following_options,
    resume_on,
    resume_task,
    run_task,
    start_run,
    with_budget,
)
from batchq.cli.manifests import show_plan, task_slots
from batchq.cli.output import put_json, say
from batchq.cli.request import (
    CHOICES,
    budget_options,
    choice_options,
    concurrency_option,
    load_request,
    optional_manifest_argument,
)
from batchq.errors import UsageError
from batchq.planning import planfile

if TYPE_CHECKING:
    from batchq.actions.wishes import Driven
    from batchq.manifest.models import Manifest
    from batchq.plan import Plan
    from batchq.planning.planfile import KeptPlan
    from batchq.ports import RunInfo
    from batchq.services import Services


@click.command("submit")
@optional_manifest_argument
@choice_options
@following_options
@click.option("--plan", "plan_id", metavar="ID", help="Run what `batchq plan FILE --out` kept.")
@click.option("--dry-run", is_flag=True, help="Show the plan and queue nothing.")
def submit_command(
    file: Path | None,
    concurrency: int | None,
    following: Following,
    plan_id: str | None,
    dry_run: bool,  # noqa: FBT001 (click passes by name, here and below)
    **choices: Any,
) -> int:
    """Runs the manifest FILE as a new version and follows it.

    Without BATCHQ_BROKER_URL a private Redis and workers are started and stopped again; Ctrl-C
    pauses the run. With it the run is queued there; Ctrl-C only stops the looking.

    With --plan ID exactly what was shown is run: it is refused if anything changed since.
    """
    kept = None
    if plan_id is not None:
        _refuse_choices(file)
        kept = planfile.find(plan_id, following.settings.home)
        file, choices = Path(kept.file), planfile.choices_of(kept)
        concurrency = choices.pop("concurrency")
        following = replace(following, workers=kept.workers)
    elif file is None:
        raise UsageError("submit what? Give a manifest FILE, or --plan ID")
    manifest = load_request(file, concurrency=concurrency, **choices)
    if (manifest.rounds or 1) > 1 and kept is None and not dry_run:
        from batchq.cli.rounds import submit_rounds

        def run(manifest: Manifest, following: Following) -> Driven:
            task = _task_of(manifest, _planned(manifest, following), following)
            assert task is not None  # rounds do not go together with skip_existing
            return drive_task(task, following, concurrency)

        choices["concurrency"] = concurrency
        return submit_rounds(file, manifest, following, choices, run)
    plan = _planned(manifest, following)
    if kept is not None:
        _refuse_changes(kept, plan)
    if dry_run:
        show_plan(plan, as_json=following.as_json)
        return 0
    task = _task_of(manifest, plan, following)
    return 0 if task is None else run_task(task, following, concurrency)


def _refuse_choices(file: Path | None) -> None:
    """Raises UsageError if the command line says what a kept plan says already."""
    context = click.get_current_context()
    chosen = {*CHOICES, "workers"}
    given = [] if file is None else ["FILE"]
    given += [
        param.opts[-1]
        for param in context.command.params
        if param.name in chosen
        and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(f"a plan says it all: leave out {', '.join(given)}, or plan anew with it")


def _refuse_changes(kept: KeptPlan, now: Plan) -> None:
    """Raises UsageError if a plan of the same command line is another one now."""
    found = planfile.differences(kept.plan, now)
    if kept.base:
        from batchq.actions.submission import find_base

        base = find_base(now)
        newest = base.name if base else "nothing"
        if newest != kept.base:
            found.append(f"items would be taken over from {newest}, not from {kept.base}")
    if found:
        changes = "\n".join(f"  {one}" for one in found)
        raise UsageError(f"since it was planned:\n{changes}\nplan it anew to see what it would do")


def _planned(manifest: Manifest, following: Following) -> Plan:
    from batchq.planning.planner import make_plan

    return make_plan(manifest, slots=task_slots(following.workers))


def _task_of(manifest: Manifest, plan: Plan, following: Following) -> Task | None:
    """What a submit begins; None, which is said, if there is nothing to do."""
    settings = following.settings
    if not settings.broker_url:
        # On a broker the calls are made elsewhere, with keys of their own.
        require_keys(manifest, plan)
    for warning in plan.warnings:
        say(f"warning: {warning}")

    def begin(services: Services) -> RunInfo:
        from batchq.planning.lock import manifest_lock
        from batchq.runs.life import create_run

        return create_run(plan, manifest_lock(manifest, plan), services, now=time.time())

    if not any(step.skip_existing for step in plan.steps):
        return Task(plan, begin, start_run)
    from batchq.actions.submission import prepare  # other submits need not wait for its imports

    found = prepare(manifest, plan, settings)
    for note in found.notes:
        say(note)
    if found.task is None and following.as_json:
        put_json({"version": found.base, "nothing_to_do": True})
    return found.task


@click.command("resume")
@click.argument("run")
@concurrency_option
@click.option(
    "--accept-drift", is_flag=True, help="Go on though files changed; the frozen ones are used."
)
@click.option("--dry-run", is_flag=True, help="Say what would be run and do nothing.")
@budget_options
@following_options
def resume_command(
    run: str,
    concurrency: int | None,
    max_cost: int | None,
    max_tokens: int | None,
    accept_drift: bool,  # noqa: FBT001
    dry_run: bool,  # noqa: FBT001
    following: Following,
) -> int:
    """Goes on with RUN where it stopped: same version, the items that have not run."""
    from batchq.actions.lookup import find_resumable

    settings = following.settings
    info = find_resumable(run, settings)
    if info is None:
        say(f"{run} is complete: nothing to do")
        return 0
    if not accept_drift:
        _refuse_drift(info)
    if dry_run:
        from batchq.cli.reuse import put_rest

        put_rest(info, as_json=following.as_json)
        return 0

    raised = with_budget(info, max_cost, max_tokens)
    return run_task(resume_task(raised, settings), following, concurrency)


@click.command("retry")
@click.argument("run")
@click.option("--kind", metavar="KIND", help="Only those that failed so: rate_limit, timeout, ...")
@click.option("--group", metavar="ID", help="Only those of this group of `batchq failures`.")
@click.option("--dry-run", is_flag=True, help="Say what would be retried and do nothing.")
@concurrency_option
@budget_options
@following_options
def retry_command(
    run: str,
    kind: str | None,
    group: str | None,
    dry_run: bool,  # noqa: FBT001
    concurrency: int | None,
    max_cost: int | None,
    max_tokens: int | None,
    following: Following,
) -> int:
    """Runs the items of RUN that failed once more, in the same version.

    Items of later steps that now have an input run, too.
    """
    from batchq.actions.acts import Which, count_failed, reopen_failed
    from batchq.actions.lookup import find_over
    from batchq.runs.life import load_run

    settings = following.settings
    record = find_over(run, settings)
    name = f"{record.pipeline}@{record.version}"
    which = Which(kind, group)
    total, kinds = count_failed(record, which)
    found = ", ".join(f"{number} {word}" for word, number in kinds.most_common()) or "none"
    if not total:
        say(f"{name}: nothing to retry (failed items: {found})")
        return 0
    say(f"{'would retry' if dry_run else 'retrying'} {total} of {name} (failed items: {found})")
    if dry_run:
        return 0

    def begin(services: Services) -> RunInfo:
        return with_budget(reopen_failed(record, which, services), max_cost, max_tokens)

    task = Task(load_run(record).plan, begin, resume_on(settings), before=record.run)
    return run_task(task, following, concurrency)


def _refuse_drift(info: RunInfo) -> None:
    from batchq.planning.drift import find_drift

    if found := find_drift(info.plan):
        changes = "\n".join(f"  {one}" for one in found)
        raise UsageError(
            f"since {info.pipeline}@{info.version} was submitted:\n{changes}\n"
            "--accept-drift goes on with what was frozen then; to use the new files, submit them "
            "as a new version, or `batchq rerun --manifest`"
        )
