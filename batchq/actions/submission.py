"""Decides what a submit begins: a new version, the rest of one that stopped, or nothing at all."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchq.actions.lookup import find, stays_alive
from batchq.actions.wishes import Task
from batchq.errors import RunNotFound, StoreError, UsageError
from batchq.manifest.labels import DEFAULT_LABEL
from batchq.manifest.models import Manifest
from batchq.manifest.scalars import NEWEST
from batchq.plan import Plan
from batchq.planning.changes import work_changes
from batchq.planning.lock import manifest_lock
from batchq.ports import RunInfo
from batchq.progress import RunState
from batchq.records import RunRecord
from batchq.runs.kept import answers_in, has_cache
from batchq.runs.learned import Lesson, learn
from batchq.runs.life import create_run, load_run, open_folder, open_outputs, reopen_run
from batchq.runs.reuse import Review, create_takeover, review_plan, scaled_plan
from batchq.runs.versions import Version, open_version
from batchq.services import COMMAND_PATIENCE_S, Services, build_services
from batchq.settings import Settings
from batchq.text.amounts import count

if TYPE_CHECKING:
    from batchq.ports import Cache
    from batchq.runs.reuse import Ask

SHOWN_REASONS = 5


@dataclass(frozen=True, slots=True)
class Submission:
    """What a submit begins, and what it says of it; without a task `base` has everything."""

    task: Task | None
    notes: tuple[str, ...] = ()
    base: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """The label and the note that a version is to get; None leaves what it has."""

    label: str | None = None
    note: str | None = None


NOTHING_TOLD = Told()


def prepare(manifest: Manifest, plan: Plan, settings: Settings) -> Submission:
    """Finds out what is to be run.

    Without `skip_existing` that is a new version. With it, a version that stopped before its end
    is gone on with if it was of the same work; else a new version takes over what has an output.

    Raises UsageError if that version runs now, RunNotFound if the one that is named is not there.
    """
    lock = manifest_lock(manifest, plan)
    plain = Task(plan, lambda services: create_run(plan, lock, services, now=time.time()), _start)
    wanted = skipping(plan)
    if not wanted:
        return Submission(plain)
    if wanted == NEWEST:
        stopped = _stopped(plan, settings)
        if stopped is not None:
            told = _told(manifest, plan, load_run(stopped).plan)
            return _going_on(stopped, told, settings)
    base = find_base(plan)
    if base is None:
        return Submission(plain)
    review = review_plan(plan, base)
    if review.is_idle:
        note = f"nothing to do: {base.name} has all of it"
        if _told(manifest, plan, base.plan) != NOTHING_TOLD:
            note += f"; `batchq label {plan.pipeline} {base.version}` changes its label and note"
        return Submission(None, (note,), base.name)
    if not review.takes_over:
        return Submission(plain, tuple(summary_lines(review)))

    def begin(services: Services) -> RunInfo:
        return create_takeover(review, lock, services, now=time.time())

    return Submission(Task(plan, begin, _start), tuple(summary_lines(review)))


def skipping(plan: Plan) -> str:
    """Which version a plan takes items over from: `newest`, a version, or "" for none."""
    return next((step.skip_existing for step in plan.steps if step.skip_existing), "")


def find_base(plan: Plan) -> Version | None:
    """The version that a plan is compared with: the one it names, else the newest that is whole.

    Raises RunNotFound if it names one that is not there.
    """
    outputs = open_outputs(plan)
    wanted = skipping(plan)
    known = outputs.versions(plan.pipeline)
    if wanted not in ("", NEWEST):
        url = outputs.open_version(plan.pipeline, wanted).url
        return open_version(plan.pipeline, wanted, url)
    for name in reversed(known):
        url = outputs.open_version(plan.pipeline, name).url
        try:
            return open_version(plan.pipeline, name, url)
        except (StoreError, RunNotFound):
            continue  # a part of it was deleted
    return None


def review(plan: Plan, settings: Settings) -> Review:
    """Compares a plan with the version before it and with the answers that are kept.

    A broken version is none, with the reason as `problem`, unless items are taken over from it.
    """
    cache = _cache(plan, settings)
    ask: Ask | None = None if cache is None else answers_in(cache)
    try:
        return review_plan(plan, find_base(plan), ask=ask)
    except (StoreError, RunNotFound) as error:
        if skipping(plan):
            raise
        return replace(review_plan(plan, None, ask=ask), problem=str(error))


def lessons(review: Review, settings: Settings) -> list[Lesson]:
    """What the version before teaches about a plan; nothing where there is none, or no calls."""
    if review.base is None or not any(step.calls for step in review.plan.steps):
        return []
    folder, before = review.base.folder, review.base.plan
    summaries = {step.spec.number: folder.summary(step.spec.number) for step in before.steps}
    catalog = build_services(settings, patience_s=COMMAND_PATIENCE_S).catalog
    run = folder.read_metadata().run
    return learn(scaled_plan(review), before, run, summaries, catalog)


def summary_lines(review: Review) -> list[str]:
    """How many items are reused and run, and why, for people."""
    if not any(step.decisions for step in review.steps):
        return []
    lines = []
    for step in review.steps:
        total = len(step.decisions)
        reused = sum(one.is_reused for one in step.decisions)
        if not total:
            continue
        head = f"{step.step.spec.name}: {reused:,} of {count(total, 'item')} reused"
        found = Counter(one.reason for one in step.decisions).most_common()
        shown = [f"{reason} ({number:,})" for reason, number in found[:SHOWN_REASONS]]
        more = sum(number for _, number in found[SHOWN_REASONS:])
        shown += [f"and {more:,} for other reasons"] if more else []
        lines.append(f"{head}: {', '.join(shown)}")
    return lines


def _cache(plan: Plan, settings: Settings) -> Cache | None:
    """The cache that workers will ask, unless it is empty because it was never made."""
    if not any(map(has_cache, plan.steps)):
        return None
    if not settings.broker_url:
        is_default = not settings.cache_url
        if is_default and not (settings.home / "cache.sqlite").exists():
            return None
        settings = settings.model_copy(update={"cache_url": settings.local_cache_url})
    return build_services(settings, patience_s=COMMAND_PATIENCE_S).cache


def _stopped(plan: Plan, settings: Settings) -> RunRecord | None:
    """The newest version if it stopped before its end and was of the same work."""
    services = build_services(settings, patience_s=COMMAND_PATIENCE_S)
    record = services.listing.run(plan.pipeline)
    if record is None or record.state is RunState.COMPLETED:
        return None
    name = f"{record.pipeline}@{record.version}"
    if stays_alive(record.run, settings) or not find(record.run, settings).progress().state.is_over:
        raise UsageError(f"{name} is under way: `batchq watch {name}`, or pause it first")
    try:
        before = load_run(record).plan
    except (StoreError, RunNotFound):
        return None  # what is left of it cannot be gone on with
    return record if _is_same(before, plan) else None


def _is_same(before: Plan, plan: Plan) -> bool:
    """Whether two plans do the same to the same items."""
    if len(before.steps) != len(plan.steps):
        return False
    for was, step in zip(before.steps, plan.steps, strict=True):
        if was.spec.name != step.spec.name or work_changes(was, step):
            return False
        if replace(was.input, written="") != replace(step.input, written=""):
            return False
        if (was.output, was.needs) != (step.output, step.needs):
            return False
    return _input_hashes(before) == _input_hashes(plan)


def _input_hashes(plan: Plan) -> dict[str, str]:
    return {name: value for name, value in plan.hashes.items() if name.startswith("input:")}


def _told(manifest: Manifest, plan: Plan, before: Plan) -> Told:
    """The label and the note that a submit gives, unless a version was made with the same."""
    given = manifest.origin.commands
    is_labelled = "status" in given or plan.status not in (before.status, DEFAULT_LABEL)
    is_noted = "notes" in given or plan.notes not in (before.notes, "")
    return Told(plan.status if is_labelled else None, plan.notes if is_noted else None)


def _going_on(record: RunRecord, told: Told, settings: Settings) -> Submission:
    def begin(services: Services) -> RunInfo:
        from batchq.store.labelling import relabel

        info = reopen_run(record, lambda outcome: not outcome.is_ok, services)
        if told != NOTHING_TOLD:  # the end of the run takes it from there
            relabel(open_folder(record.folder), told.label or record.status, told.note)
        return info

    def go(info: RunInfo, services: Services) -> None:
        from batchq.queue.control import resume

        resume(info, services, is_private=not settings.broker_url)

    name = f"{record.pipeline}@{record.version}"
    done = find(record.run, settings).progress().summary.ok  # a killed run's record has no counts
    note = f"going on with {name}, which stopped before its end ({done:,} outputs are there)"
    return Submission(Task(load_run(record).plan, begin, go, before=record.run), (note,))


def _start(info: RunInfo, services: Services) -> None:
    from batchq.queue.control import start

    start(info, services)
