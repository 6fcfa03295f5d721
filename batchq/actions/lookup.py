"""Finds the run that a name means, and where its news come from."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchq.embedded.stack import live_broker_url
from batchq.errors import RunNotFound, UsageError
from batchq.monitoring.bottleneck import what_bounds
from batchq.outcome import Usage
from batchq.ports import RunInfo
from batchq.progress import Progress, RunState, StepProgress
from batchq.records import RunRecord
from batchq.runs.life import budget_use, find_run, load_run, open_folder, progress
from batchq.services import COMMAND_PATIENCE_S, Services, build_services
from batchq.settings import Settings

# What a killed command leaves behind ends within this time: see embedded/supervisor.py.
ORPHANS_END_S = 8.0

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from batchq.outcome import Summary
    from batchq.records import Catalog
    from batchq.store import Metadata, RunFolder


@dataclass(frozen=True, slots=True)
class Found:
    """A run. `services` reach the Redis it is in, if it is in one.

    `record` is its catalog row, in `catalog`, if it is in there.
    """

    run: str
    name: str
    services: Services | None
    record: RunRecord | None = None
    catalog: Catalog | None = None

    def progress(self) -> Progress:
        """How far it is: by Redis while it is in flight there, else by its folder."""
        if self.services is not None:
            seen = progress(self.run, self.services, time.time())
            if seen is not None:
                return replace(seen, bound_by=what_bounds(seen, self.services))
        assert self.record is not None
        assert self.catalog is not None
        return progress_of_record(self.record, self.catalog)


def find(name: str, settings: Settings) -> Found:
    """Finds a run by the catalog, or on the broker if it was submitted elsewhere.

    Raises RunNotFound with the nearest names.
    """
    services = build_services(settings, patience_s=COMMAND_PATIENCE_S)
    try:
        record = find_run(name, services)
    except RunNotFound:
        run = _on_broker(name, services) if settings.broker_url else None
        if run is None:
            raise
        return Found(run, name, services)
    shown, catalog = f"{record.pipeline}@{record.version}", services.catalog
    if url := live_broker_url(settings.home, record.run):
        live = settings.model_copy(update={"broker_url": url})
        return Found(record.run, shown, build_services(live, patience_s=2.0), record, catalog)
    if settings.broker_url and services.ledger.state(record.run) is not None:
        return Found(record.run, shown, services, record, catalog)
    return Found(record.run, shown, None, record, catalog)


def as_seen(
    record: RunRecord, settings: Settings, live: Collection[str] | None = None
) -> RunRecord:
    """A catalog row whose state is what can be seen here: it is told there only when a run stops.

    One that was killed told nothing; it is shown as paused. Of a broker nothing is asked. Where
    many rows are looked at, `live` are the runs that a stack serves here.
    """
    if record.state is RunState.COMPLETED:
        return record
    if live is None:
        live = [record.run] if live_broker_url(settings.home, record.run) else []
    if record.run in live:  # also one that was resumed: the catalog has it as paused until it stops
        return replace(record, state=RunState.RUNNING)
    if record.state.is_over or settings.broker_url:
        return record
    return replace(record, state=RunState.PAUSED)


def find_resumable(name: str, settings: Settings) -> RunInfo | None:
    """Reads a run that is to be taken up again; None if it is complete."""
    found = find(name, settings)
    if found.record is None:
        raise UsageError(f"{name} was submitted elsewhere: resume it where its folder is")
    if found.record.state is RunState.COMPLETED:
        return None
    if stays_alive(found.run, settings):
        raise UsageError(f"{found.name} runs in another terminal: `batchq watch {found.name}`")
    return load_run(found.record)


def stays_alive(run: str, settings: Settings) -> bool:
    """Whether a stack has this run; that of a command which was just killed is about to end."""
    end = time.monotonic() + ORPHANS_END_S
    while live_broker_url(settings.home, run):
        if time.monotonic() > end:
            return True
        time.sleep(0.1)
    return False


def find_over(name: str, settings: Settings) -> RunRecord:
    """Finds a run that is over, for a retry of what failed in it."""
    from batchq.runs.versions import require_changeable  # and with it the store

    found = find(name, settings)
    if found.record is None:
        raise UsageError(f"{name} was submitted elsewhere: retry it where its folder is")
    require_changeable(found.record)
    state = found.progress().state
    if not state.is_over or live_broker_url(settings.home, found.run):
        raise UsageError(f"{found.name} is {state.value}: wait for its end, or pause it first")
    return found.record


def _on_broker(name: str, services: Services) -> str | None:
    """Finds a run in Redis alone: from a machine that does not have the catalog."""
    pipeline, _, version = name.partition("@")
    for run in reversed(services.ledger.runs()):
        about = services.ledger.about(run)
        if run == name:
            return run
        if about.get("pipeline") == pipeline and version in ("", "latest", about.get("version")):
            return run
    return name if services.ledger.state(name) is not None else None


def _summaries(
    folder: RunFolder, record: RunRecord, told: Metadata, catalog: Catalog
) -> Iterator[Summary]:
    """How the steps of a run stand: by its metadata if it ended with them, else by its outcomes.

    Of batches that the catalog knows they need not be read: that would be all items of the run.
    """
    from batchq.store.earlier import count_by
    from batchq.store.metadata import summary_in

    known: dict[tuple[int, int], Summary] | None = None
    is_told = record.state.is_over and told.status == record.state.value
    done = folder.done_steps()
    for step in folder.read_plan().steps:
        number = step.spec.number
        if is_told and step.spec.name in told.stats:
            yield summary_in(told.stats[step.spec.name])
        elif number in done:
            yield folder.summary(number)
        else:
            known = catalog.batches(record.run) if known is None else known
            of_step = {batch: one for (of, batch), one in known.items() if of == number}
            yield count_by(folder, number, of_step)


def progress_of_record(record: RunRecord, catalog: Catalog) -> Progress:
    """A run that no Redis knows, out of its catalog row and its folder.

    One that stopped without saying so, since its processes were killed, is shown as paused: a
    resume goes on with it.
    """
    from batchq.store.canary import read_canary
    from batchq.store.worktime import seen_at_work_s

    info = load_run(record)
    folder = open_folder(record.folder)
    done = folder.done_steps()
    told = folder.read_metadata()
    steps = []
    summaries = _summaries(folder, record, told, catalog)
    for step, summary in zip(info.plan.steps, summaries, strict=True):
        number = step.spec.number
        collated = len(folder.collated_batches(number))
        total = folder.item_count(number) or 0
        is_begun = bool(collated)
        state = "done" if number in done else "running" if is_begun else "waiting"
        steps.append(
            StepProgress(
                number,
                step.spec.name,
                state,  # type: ignore[arg-type]  # a literal
                total,
                step.batches,
                collated,
                summary,
                window=step.pacing.concurrent_batches,
            )
        )
    started = info.created_at
    reason = next(iter(told.logs), "")
    seen = Progress(
        run=record.run,
        pipeline=record.pipeline,
        version=record.version,
        state=record.state,
        reason=reason,
        folder=record.folder,
        steps=tuple(steps),
        in_flight=0,
        started_at=started,
        updated_at=started + record.duration_s,
        budget=budget_use(info, sum((one.summary.usage for one in steps), Usage())),
        canary=read_canary(folder) if info.plan.canary else None,
    )
    if seen.state.is_over:
        return seen
    return replace(
        seen,
        state=RunState.PAUSED,
        reason="it stopped before it was done; what was in flight is counted when it goes on",
        updated_at=started + seen_at_work_s(folder, started),
    )
