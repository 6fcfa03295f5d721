"""The life of a run in its folder and the catalog: created, recorded, ended, found again."""

from __future__ import annotations

import difflib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from batchq.errors import BatchqError, RunNotFound, StoreError
from batchq.monitoring.notify import announce
from batchq.outcome import Outcome, Summary, Usage
from batchq.plan import Plan, StepPlan
from batchq.ports import BudgetUse, RunInfo
from batchq.progress import Progress, RunState, StepProgress
from batchq.records import RunRecord, iso
from batchq.services import Services

if TYPE_CHECKING:
    from batchq.store import Outputs, RunFolder


def open_folder(url: str) -> RunFolder:
    """Opens a run folder by its URL."""
    from batchq.store import RunFolder  # fsspec takes time that `--help` does not have

    return RunFolder.open(url)


def open_outputs(plan: Plan) -> Outputs:
    """Opens the folder that a plan's versions are in: relative to the manifest."""
    from batchq.store import Outputs

    return Outputs(plan.output_dir, plan.base_dir)


def create_run(plan: Plan, lock_text: str, services: Services, *, now: float) -> RunInfo:
    """Makes the next version's folder, freezes plan and items in it, and indexes it.

    Raises PlanError if the input changed under the plan, StoreError if the folder cannot be
    written; then nothing of the version is left.
    """
    from batchq.planning.planner import iter_items  # takes 200 ms that a coordinator does not have

    def fill(folder: RunFolder) -> None:
        folder.write_lock(lock_text)
        for step in plan.steps:
            if step.input.source:
                folder.freeze_items(step.spec.number, iter_items(plan, step.spec.number))

    return create_version(plan, fill, services, now=now)


def create_version(
    plan: Plan,
    fill: Callable[[RunFolder], None],
    services: Services,
    *,
    now: float,
    mode: str = "initial",
    base_version: str = "",
) -> RunInfo:
    """Makes a version's folder, lets `fill` write what is special about it, and indexes it."""
    folder = open_outputs(plan).create_version(plan.pipeline)
    try:
        fill(folder)
        folder.write_plan(plan)
        info = RunInfo(
            run=uuid.uuid4().hex[:12],
            pipeline=plan.pipeline,
            version=folder.version,
            folder=folder.url,
            plan=plan,
            created_at=now,
            mode=mode,
            base_version=base_version,
        )
        record = _record(info, RunState.PENDING, Summary(), now)
        folder.write_metadata(record, plan, {})
        services.catalog.put_run(record)
    except BaseException:
        folder.discard()
        raise
    return info


def record_batch(
    info: RunInfo, step: StepPlan, batch: int, outcomes: Sequence[Outcome], services: Services
) -> None:
    """Indexes a collated batch."""
    from batchq.store.records import batch_record

    record = batch_record(info.run, step.spec, batch, outcomes)
    services.catalog_of(info).put_batch(record, outcomes)


def finish_step(info: RunInfo, step: StepPlan, services: Services) -> None:
    """Merges a step's batches into its collated file and its errors file."""
    folder = open_folder(info.folder)
    _collate(folder, step, services)
    counts = count_step(info, step.spec.number, services)
    folder.mark_done(step.spec.number, counts)
    name = step.spec.name
    folder.append_log("step done", at=time.time(), step=name, ok=counts.ok, failed=counts.failed)


def count_step(info: RunInfo, number: int, services: Services) -> Summary:
    """What a step came to so far; what batches that are collated came to, the catalog may know."""
    from batchq.store.earlier import count_by

    batches = services.catalog_of(info).batches(info.run)
    known = {batch: summary for (step, batch), summary in batches.items() if step == number}
    return count_by(open_folder(info.folder), number, known)


def _collate(folder: RunFolder, step: StepPlan, services: Services) -> None:
    number, errors = step.spec.number, None
    if step.output.collate:
        from batchq.engine.functions import find_function  # and with it all that workers need

        function = find_function(step.output.collate, services.tools.tasks)
        outputs = [one.output for one in folder.merged_lines(number) if one.is_ok]
        folder.write_collated(number, step.output, function(outputs))
    elif step.input.whole:  # its one output is the file, not an array of one
        outputs = [one.output for one in folder.merged_lines(number) if one.is_ok]
        folder.write_collated(number, step.output, outputs[0] if outputs else [])
    else:
        errors = folder.collate(number, step.output).errors
    folder.write_errors(number, errors)


def pause_run(info: RunInfo, reason: str, services: Services) -> None:
    """Writes down that a run stands still and how far it is; a resume goes on from its folder."""
    record = _write_record(info, RunState.PAUSED, reason, services)
    announce(info, record, reason, services)
    services.ledger.rest(info.run)


def finish_run(info: RunInfo, state: RunState, reason: str, services: Services) -> None:
    """Writes the metadata, points `latest` to a complete run, and lets Redis forget it."""
    announce(info, close_run(info, state, reason, services), reason, services)
    services.ledger.set_state(info.run, state, reason)
    services.ledger.forget(info.run)


def close_run(info: RunInfo, state: RunState, reason: str, services: Services) -> RunRecord:
    """Does in folder and catalog what the end of a run takes; no Redis need know the run.

    Returns its row of the catalog.
    """
    folder = open_folder(info.folder)
    for step in info.plan.steps:
        if step.spec.number not in folder.done_steps() and folder.item_count(step.spec.number):
            _collate(folder, step, services)  # what there is of a run that ended early
    record = _write_record(info, state, reason, services)
    if info.plan.report is not None and info.plan.report.formats:
        _report(folder, info.plan.report.formats)
    if state is RunState.COMPLETED:
        open_outputs(info.plan).point_latest(info.pipeline, info.version)
    return record


def _report(folder: RunFolder, formats: Sequence[str]) -> None:
    """Writes the reports that the manifest asks for; a run does not fail for the want of one."""
    from batchq.report import gather, write_reports  # templates take time that `list` has not

    try:
        write_reports(folder, gather(folder), formats)
    except BatchqError as error:
        folder.append_log("no report", at=time.time(), level="warning", reason=str(error))


def _write_record(info: RunInfo, state: RunState, reason: str, services: Services) -> RunRecord:
    from batchq.store.worktime import worked_s

    folder = open_folder(info.folder)
    numbers, done = [step.spec.number for step in info.plan.steps], folder.done_steps()
    summaries = {
        number: folder.summary(number) if number in done else count_step(info, number, services)
        for number in numbers
    }
    now = time.time()
    record = _record(info, state, sum(summaries.values(), Summary()), now)
    if state.is_over:
        record = replace(record, duration_s=round(worked_s(folder, info.created_at, now), 3))
    record = _as_labelled(record, folder)
    folder.write_metadata(record, info.plan, summaries, reason)
    folder.append_log(f"run {state.value}", at=now, reason=reason)
    services.catalog_of(info).put_run(record)
    return record


def _as_labelled(record: RunRecord, folder: RunFolder) -> RunRecord:
    """Keeps the label and the note that people gave the version since it was submitted."""
    try:
        told = folder.read_metadata()
    except StoreError:  # broken by hand: it is written anew
        return record
    return replace(record, status=told.pipeline_status, notes=told.notes)


def _record(info: RunInfo, state: RunState, summary: Summary, now: float) -> RunRecord:
    return RunRecord(
        run=info.run,
        pipeline=info.pipeline,
        version=info.version,
        state=state,
        status=info.plan.status,
        notes=info.plan.notes,
        mode=info.mode,
        base_version=info.base_version,
        folder=info.folder,
        created_at=iso(info.created_at),
        ended_at=iso(now) if state.is_over else "",
        items=info.plan.steps[0].items,
        summary=summary,
    )


def reopen_run(
    record: RunRecord, is_again: Callable[[Outcome], bool], services: Services
) -> RunInfo:
    """Opens items of a run that is over up again, for a resume to run them in its version."""
    from batchq.store.reopen import reopen

    services.catalog.put_run(replace(record, state=RunState.PENDING))
    reopen(open_folder(record.folder), is_again)
    return load_run(record)


def budget_of(info: RunInfo) -> BudgetUse | None:
    """A run's budget, and what its folder says was spent of it; None if it has none."""
    if info.plan.budget is None:
        return None
    folder = open_folder(info.folder)
    spent = (folder.summary(step.spec.number).usage for step in info.plan.steps)
    return budget_use(info, sum(spent, Usage()))


def budget_use(info: RunInfo, spent: Usage) -> BudgetUse | None:
    """A run's budget, of which so much is spent; None if it has none."""
    if info.plan.budget is None:
        return None
    return BudgetUse(
        info.plan.budget,
        name=f"{info.pipeline}@{info.version}",
        spent_nusd=spent.cost_nusd,
        spent_tokens=spent.tokens,
    )


def progress(run: str, services: Services, now: float) -> Progress | None:
    """Reads how far a run is from the ledger alone, so it works wherever the broker is reached."""
    from batchq.ledger import summary_of  # and with it Redis: 150 ms that `list` does not need

    ledger = services.ledger
    about = ledger.about(run)
    if "steps" not in about:  # not known here, or about to be taken up
        return None
    steps = []
    opened = ledger.open_batches(run)
    for number, name in enumerate(about["steps"].split("\n"), 1):
        counters = ledger.counters(run, number)
        total, batches = counters.get("total", 0), counters.get("batches", 0)
        open_here = sum(owner == number for owner, _ in opened)
        collated = max(0, counters.get("next", 0) - open_here)
        summary = summary_of(counters)
        is_done = bool(counters) and collated >= batches and summary.total >= total
        state = "waiting" if not counters else "done" if is_done else "running"
        window, delay_s = counters.get("window", 1), counters.get("delay_ms", 0) / 1000
        waits = delay_s > 0 and counters.get("next", 0) < batches
        next_at = counters.get("sent_at_ms", 0) / 1000 + delay_s if waits else None
        steps.append(
            StepProgress(number, name, state, total, batches, collated, summary, window, next_at)  # type: ignore[arg-type]  # a literal
        )
    is_over = RunState(about["state"]).is_over
    first = int(about.get("canary") or 0)
    canary = services.canaries.get(run) if first else None
    is_first = canary is None and not (0 < steps[0].total <= first)
    return Progress(
        run=run,
        pipeline=about["pipeline"],
        version=about["version"],
        state=RunState(about["state"]),
        reason=about["reason"],
        folder=about["folder"],
        steps=tuple(steps),
        in_flight=ledger.in_flight(run),
        told=services.progress.of(run),
        started_at=float(about.get("counted_from", about["created_at"])),
        updated_at=float(about["since"]) if is_over and "since" in about else now,
        recent=ledger.recent(run),
        budget=services.budgets.use(run) if about.get("budget") else None,
        canary=canary,
        canary_items=first if is_first else 0,
        uploads=services.uploads.told(run),
    )


def find_run(name: str, services: Services) -> RunRecord:
    """Finds `pipeline@v3`, `pipeline@latest`, `pipeline` (its newest) or a run id in the catalog.

    Raises RunNotFound with the nearest names.
    """
    record = services.listing.run(name)
    if record is not None:
        return record
    near = _near_names(name, services)
    hint = f"did you mean {', '.join(near)}?" if near else "`batchq list --all` shows what there is"
    raise RunNotFound(f"no run is named {name}; {hint}")


def _near_names(name: str, services: Services) -> list[str]:
    listing = services.listing
    pipelines = difflib.get_close_matches(name.partition("@")[0], listing.pipelines(), n=3)
    known = [f"{one.pipeline}@{one.version}" for of in pipelines for one in listing.versions(of)]
    return difflib.get_close_matches(name, [*known, *pipelines], n=3)


def load_run(record: RunRecord) -> RunInfo:
    """Reads what a coordinator needs of a run from its folder; for a resume.

    Raises RunNotFound if the folder is gone, StoreError if only a part of it is left.
    """
    from batchq.store.presence import PLAN, open_whole

    folder = open_whole(f"{record.pipeline}@{record.version}", record.folder, [PLAN])
    return RunInfo(
        run=record.run,
        pipeline=record.pipeline,
        version=record.version,
        folder=record.folder,
        plan=folder.read_plan(),
        created_at=datetime.fromisoformat(record.created_at).timestamp(),
        mode=record.mode,
        base_version=record.base_version,
    )
