"""`batchq rerun`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchq.actions.wishes import Task
from batchq.cli.following import Following, following_options, run_task, start_run, with_budget
from batchq.cli.output import count, put, put_json, say, short_path
from batchq.cli.request import budget_options, concurrency_option, params_option
from batchq.errors import UsageError

if TYPE_CHECKING:
    from batchq.plan import Plan
    from batchq.ports import RunInfo
    from batchq.runs.rerun import Chosen
    from batchq.services import Services


@click.command("rerun")
@click.argument("pipeline")
@click.argument("items", nargs=-1)
@click.option("--failed", is_flag=True, help="The items that failed.")
@click.option("--marked", type=click.Choice(["good", "bad"]), help="The items marked so.")
@click.option("--where", metavar="EXPR", help="Items whose output is so: 'confidence < 0.5'.")
@click.option("--from", "base", metavar="vN", help="Build on this version, not on the latest.")
@click.option("--note", metavar="T", default="", help="A note that is kept with the version.")
@click.option("--status", metavar="S", help="Status of the version: draft, beta, final, ...")
@click.option(
    "--manifest",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run by this manifest, such as one with a changed prompt.",
)
@params_option
@concurrency_option
@budget_options
@click.option("--dry-run", is_flag=True, help="Say what would be redone and do nothing.")
@following_options
def rerun_command(
    pipeline: str,
    items: tuple[str, ...],
    failed: bool,  # noqa: FBT001 (click passes by name, here and below)
    marked: str | None,
    where: str | None,
    base: str | None,
    note: str,
    status: str | None,
    file: Path | None,
    params: tuple[tuple[str, str], ...],
    concurrency: int | None,
    max_cost: int | None,
    max_tokens: int | None,
    dry_run: bool,  # noqa: FBT001
    following: Following,
) -> int:
    """Redoes ITEMS of PIPELINE as a new version.

    What comes of an item in later steps is redone with it. Collated files hold the version before
    with the redone items in place of the old ones. Runs by the manifest that is locked in that
    version, so no file has to be as it was.
    """
    from batchq.manifest.labels import check_label
    from batchq.runs.rerun import create_rerun, in_words
    from batchq.services import COMMAND_PATIENCE_S, build_services

    if status is not None:
        check_label(status)
    services = build_services(following.settings, patience_s=COMMAND_PATIENCE_S)
    before = _base(pipeline, base, services)
    plan, lock = with_budget(before, max_cost, max_tokens).plan, None
    if file is not None:
        plan, lock = _plan_of(
            file, params, concurrency=concurrency, max_cost=max_cost, max_tokens=max_tokens
        )
    chosen = _choose(before, items, failed=failed, marked=marked, where=where)
    total = sum(map(len, chosen.values()))
    if file is None and total:
        _tell_of_drift(before)
    if dry_run:
        why = _why(failed=failed, marked=marked, where=where)
        return _preview(before, plan, chosen, why, as_json=following.as_json)
    if not total:
        put(f"{before.pipeline}@{before.version}: nothing to redo")
        return 0
    name = f"{before.pipeline}@{before.version}"
    say(f"redoing {count(total, 'item')} of {name}: {in_words(chosen)}")

    def begin(services: Services) -> RunInfo:
        return create_rerun(
            before,
            chosen,
            services,
            now=time.time(),
            plan=plan,
            lock_text=lock,
            status=status,
            note=note,
        )

    return run_task(Task(plan, begin, start_run), following, concurrency)


def _base(pipeline: str, version: str | None, services: Services) -> RunInfo:
    """The version to build on: the one that is named, else the newest that is complete."""
    from batchq.runs.life import find_run, load_run

    name = f"{pipeline.partition('@')[0]}@{version}" if version else pipeline
    if "@" not in name:
        name = f"{name}@latest"
    return load_run(find_run(name, services))


def _plan_of(file: Path, params: tuple[tuple[str, str], ...], **choices: Any) -> tuple[Plan, str]:
    from batchq.cli.request import load_request
    from batchq.planning.lock import manifest_lock
    from batchq.planning.planner import make_plan

    manifest = load_request(file, params=params, **choices)
    plan = make_plan(manifest)
    return plan, manifest_lock(manifest, plan)


def _tell_of_drift(base: RunInfo) -> None:
    """Says which files are not what they were: who has mended a prompt wants the new one."""
    from batchq.planning.drift import find_drift

    name = f"{base.pipeline}@{base.version}"
    found = [one for one in find_drift(base.plan) if one.now]
    inputs = ", ".join(str(one) for one in found if one.is_input)
    if work := ", ".join(str(one) for one in found if not one.is_input):
        path = base.plan.manifest_path
        way = f"`--manifest {short_path(path)}`" if path else "`rerun_items` in Python"
        say(f"note: since {name}, {work}. Items are redone as then; {way} takes what is there now")
    if inputs:
        say(
            f"note: since {name}, {inputs}. Items are redone with the data of then; to run those "
            "that changed, submit with `skip_existing: true`"
        )


def _choose(
    base: RunInfo, ids: tuple[str, ...], *, failed: bool, marked: str | None, where: str | None
) -> Chosen:
    from batchq.runs.life import open_folder
    from batchq.runs.rerun import choose_failed, choose_ids, choose_marked, choose_where
    from batchq.store.edited import warnings_of

    for warning in warnings_of(open_folder(base.folder)):
        say(f"warning: {warning}")
    ways = [bool(ids), failed, marked is not None, where is not None]
    if sum(ways) != 1:
        raise UsageError("name the items, or use one of --failed, --marked and --where")
    if ids:
        return choose_ids(base, ids)
    if marked is not None:
        from batchq.store.marks import Verdict

        return choose_marked(base, Verdict(marked))
    return choose_failed(base) if where is None else choose_where(base, where)


def _why(*, failed: bool, marked: str | None, where: str | None) -> str:
    if failed:
        return "they failed"
    if marked is not None:
        return f"they are marked {marked}"
    return f"{where} holds for their output" if where is not None else "they were named"


def _preview(base: RunInfo, plan: Plan, chosen: Chosen, why: str, *, as_json: bool) -> int:
    from batchq.engine.lineage import redo_steps
    from batchq.planning.changes import work_changes
    from batchq.runs.rerun import in_words

    indexes = {root: [item.index for item in items] for root, items in chosen.items()}
    steps = {
        step.spec.name: redo_steps(base.plan, indexes)[step.spec.number].kind
        for step in base.plan.steps
    }
    changes = {
        step.spec.name: work_changes(was, step)
        for was, step in zip(base.plan.steps, plan.steps, strict=False)
    }
    if as_json:
        ids = [item.id for items in chosen.values() for item in items]
        name = f"{base.pipeline}@{base.version}"
        put_json({"base": name, "items": ids, "why": why, "steps": steps, "changes": changes})
        return 0
    words = {
        "none": "taken over",
        "some": "these items",
        "all": "all of it, since its input changes",
    }
    because = f": {why}" if any(chosen.values()) else ""
    put(f"would redo {in_words(chosen) or 'nothing'} of {base.pipeline}@{base.version}{because}")
    for name, kind in steps.items():
        put("; ".join([f"  {name}: {words[kind]}", *changes.get(name, ())]))
    return 0
