"""The Python API: runs pipelines from a script, a test or a notebook, and reads what they made."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

from batchq.actions.exits import INTERRUPTED, exit_code
from batchq.actions.launch import run_task, settings_for
from batchq.actions.lookup import find
from batchq.actions.preflight import require_keys, require_sound_simulators
from batchq.actions.submission import prepare
from batchq.actions.views import LoggedView, PlainView
from batchq.actions.wishes import Task, Wishes
from batchq.errors import UsageError
from batchq.host.interrupts import Interrupts
from batchq.manifest.loader import Overrides, load_manifest, with_overrides
from batchq.manifest.models import Manifest
from batchq.manifest.rounds import ROUND, bounds_left, rounds_left
from batchq.manifest.scalars import parse_token_budget, parse_usd
from batchq.manifest.step import Name, Step, build_manifest
from batchq.outcome import Json, Summary, Usage
from batchq.plan import Plan
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import make_plan
from batchq.ports import RunInfo
from batchq.progress import Progress, RunState
from batchq.queue.control import start
from batchq.runs.life import find_run, load_run, open_folder
from batchq.runs.pins import pin_inputs
from batchq.runs.rerun import choose_ids, create_rerun
from batchq.services import COMMAND_PATIENCE_S, Services, build_services
from batchq.settings import Settings

__all__ = ["Run", "Step", "run_pipeline", "submit"]


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """A run as it was when it was looked at; its results are read from its folder when asked for.

    A run that goes on meanwhile is looked at anew by `Run.load(run.name)`.
    """

    progress: Progress

    @classmethod
    def load(cls, name: str, *, local: bool = False) -> Run:
        """Finds `pipeline@v3`, `pipeline@latest`, `pipeline` (its newest) or a run id.

        Raises RunNotFound with the nearest names.
        """
        return cls(find(name, settings_for(local=local)).progress())

    def __repr__(self) -> str:
        counts = f"{self.summary.ok} ok, {self.summary.failed} failed"
        return f"<Run {self.name} {self.state.value}, {counts}>"

    @property
    def id(self) -> str:
        """The id of the run, which is in the catalog and in all logs."""
        return self.progress.run

    @property
    def name(self) -> str:
        """The name that commands and `Run.load` take: `pipeline@v3`."""
        return f"{self.pipeline}@{self.version}"

    @property
    def pipeline(self) -> str:
        """The full name: `NAME_module_4_path_a`."""
        return self.progress.pipeline

    @property
    def version(self) -> str:
        """The version: `v0`, `v1`, ..."""
        return self.progress.version

    @property
    def folder(self) -> str:
        """The absolute path of the version's folder."""
        return self.progress.folder

    @property
    def state(self) -> RunState:
        """Where it stands; it equals its text: `run.state == "completed"`."""
        return self.progress.state

    @property
    def reason(self) -> str:
        """Why it is paused or failed; empty else."""
        return self.progress.reason

    @property
    def summary(self) -> Summary:
        """Items ok and failed, retries, tokens and cost, over all steps."""
        return self.progress.summary

    @property
    def exit_code(self) -> int | None:
        """What `batchq submit` would end with; None while the run goes on.

        0: all items ok, 3: some failed, 4: the run failed, 5: paused, 130: cancelled.
        """
        return exit_code(self.progress) if self.state.is_over else None

    @property
    def metadata(self) -> dict[str, Any]:
        """What `metadata.json` holds: version, mode, notes, duration in seconds, stats, ..."""
        return asdict(open_folder(self.folder).read_metadata())

    def collated(self, step: str | int | None = None) -> list[Json]:
        """The rows of a step's collated output, in input order; a document is one row.

        A rerun's rows stand among those of the version before it. Failed items have none.

        Args:
            step: The step's name, or its number from 1; default: the last one.

        Raises:
            UsageError: there is no such step.
            StoreError: the folder is gone or broken.
        """
        return list(open_folder(self.folder).read_collated(self._number(step)))

    def errors(self, step: str | int | None = None) -> list[dict[str, Any]]:
        """The items that failed in a step, or in any: `item_id`, `item_index`, `error`, `kind`, ...

        They are there as soon as the step is over. Raises as `collated` does.
        """
        plan, files = open_folder(self.folder).read_plan(), open_folder(self.folder).files
        numbers = [one.spec.number for one in plan.steps] if step is None else [self._number(step)]
        found: list[dict[str, Any]] = []
        for path in (f"{number:02d}_errors.json" for number in numbers):
            found += json.loads(files.read(path)) if files.exists(path) else []
        return found

    def _number(self, step: str | int | None) -> int:
        steps = open_folder(self.folder).read_plan().steps
        if step is None:
            return steps[-1].spec.number
        for one in steps:
            if step in (one.spec.name, one.spec.number):
                return one.spec.number
        names = ", ".join(one.spec.name for one in steps)
        raise UsageError(f"{self.name} has no step {step!r}; its steps are {names}")


def run_pipeline(
    steps: Sequence[Step],
    *,
    pipeline_name: str | None = None,
    module_number: int | str | None = None,
    path_letter: str | None = None,
    pipeline_status: str = "draft",
    notes: str = "",
    rerun_items: Sequence[str | int] | None = None,
    verbose: bool = False,
    providers: Mapping[str, Mapping[str, Any]] | None = None,
    output_dir: Name = "outputs",
    base_dir: Name | None = None,
    concurrency: int | None = None,
    max_cost: float | str | None = None,
    max_tokens: int | str | None = None,
    local: bool = False,
) -> Run:
    """Runs steps as a new version of a pipeline, waits for the end and returns the run.

    A step without an input reads the output of the one before it. With `skip_existing` in a step,
    a version that stopped is gone on with instead, and a new one takes over what has an output in
    the newest; if that is all of it, the newest is returned and nothing is run. Without a broker
    (`BATCHQ_BROKER_URL`) a private Redis and workers are started for it and stopped afterwards.
    Items that fail, and a run that fails by that, raise nothing: they are in what is returned.
    Ctrl-C pauses the run, and raises KeyboardInterrupt when all that was in flight is kept.

    Args:
        steps: What to do, in order.
        pipeline_name: Groups versions. Without it the run is a pipeline of its own, called after
            the time: nothing can be rerun or compared.
        module_number: Part of the folder's name: NAME_module_4.
        path_letter: Part of the folder's name: NAME_path_a.
        pipeline_status: How mature the version is: draft, alpha, beta, rc, final, deprecated, or
            a word of your own.
        notes: Why the version is made.
        rerun_items: Ids of the items to be redone, by these steps, on top of the newest complete
            version; collated files hold its other items, too.
        verbose: Write a line about the progress to standard error now and then.
        providers: LLM endpoints by name, with the keys of a manifest's `providers`. Default: those
            in `providers.yaml` in `base_dir`, if it is there.
        output_dir: Where pipelines have their folders; relative to `base_dir`.
        base_dir: Where relative paths start, and functions are imported from. Default: the
            current folder.
        concurrency: Calls in flight at a time, at most.
        max_cost: Dollars that the run may cost; over it, it comes back paused.
        max_tokens: Tokens that the run may use, such as 500_000 or "2M".
        local: Use private workers, broker or not.

    Raises:
        ManifestError: with everything that is wrong in the parameters, each named.
        PlanError: an input is missing, broken or empty, or a prompt asks for a missing field.
        RunNotFound: there is no version to build on, or an id of `rerun_items` is not in it.
        UsageError: a setting, or a combination of parameters, makes no sense; with
            `skip_existing`, the newest version is under way.
        StoreError: the output folder or the catalog cannot be written.
        QueueError: the broker or its workers are out of reach.
    """
    _refuse_to_nest()
    _check_steps(steps)
    if rerun_items is not None and not pipeline_name:
        raise UsageError("rerun_items needs a pipeline_name: whose items?")
    manifest = build_manifest(
        steps,
        Path(base_dir or ".").absolute(),
        providers=providers,
        output_dir=output_dir,
        labels={"module": module_number, "path": path_letter},
        name=pipeline_name or f"run_{datetime.now():%Y%m%d_%H%M%S}_{secrets.token_hex(2)}",  # noqa: DTZ005 (local, as people name things)
        status=pipeline_status,
        notes=notes,
    )
    manifest = pin_inputs(with_overrides(manifest, _bounds(concurrency, max_cost, max_tokens)))
    settings = settings_for(local=local)
    plan = _planned(manifest, settings, verbose=verbose)
    if rerun_items is not None:
        task = _rerun(plan, manifest_lock(manifest, plan), rerun_items, settings)
        return _driven(task, settings, verbose=verbose)
    return _submitted(manifest, plan, settings, verbose=verbose)


def submit(
    manifest: Name,
    params: Mapping[str, Any] | None = None,
    *,
    wait: bool = True,
    verbose: bool = False,
    concurrency: int | None = None,
    max_cost: float | str | None = None,
    max_tokens: int | str | None = None,
    local: bool = False,
) -> Run:
    """Runs a manifest file as a new version and returns the run; raises as `run_pipeline` does.

    With `rounds` it returns the last one: the first that did not complete, if one did not, or the
    one that used the budget up.

    Args:
        manifest: The path of the YAML file.
        params: Values of its params, by name.
        wait: Return when the run is over. False queues it and needs a broker, whose workers go
            on with it; look at it with `Run.load(run.name)`.
        verbose: Write a line about the progress to standard error now and then.
        concurrency: Calls in flight at a time, at most.
        max_cost: Dollars that the run may cost, over what the manifest says.
        max_tokens: Tokens that the run may use, such as 500_000 or "2M".
        local: Use private workers, broker or not.
    """
    _refuse_to_nest()
    given = {name: _text(value) for name, value in (params or {}).items()}
    overrides = _bounds(concurrency, max_cost, max_tokens)
    loaded = pin_inputs(load_manifest(os.fspath(manifest), given, overrides=overrides))
    rounds, settings = rounds_left(loaded), settings_for(local=local)
    if len(rounds) > 1 and not wait:
        raise UsageError("a round begins when the one before it is done: `rounds` need wait=True")
    first, spent = loaded, Usage()
    for number in rounds:
        if number > rounds.start:
            left = bounds_left(first, spent)
            if left is None:
                break
            given[ROUND] = str(number)
            overrides = replace(overrides, max_cost_nusd=left[0], max_tokens=left[1])
            loaded = pin_inputs(load_manifest(os.fspath(manifest), given, overrides=overrides))
        plan = _planned(loaded, settings, verbose=verbose)
        run = _submitted(loaded, plan, settings, verbose=verbose, wait=wait)
        spent += run.summary.usage
        if run.state is not RunState.COMPLETED:
            break
    return run


def _bounds(
    concurrency: int | None, max_cost: float | str | None, max_tokens: int | str | None
) -> Overrides:
    """What bounds a run, read as the command line reads it."""
    return Overrides(
        concurrency=concurrency,
        max_cost_nusd=_amount("max_cost", parse_usd, max_cost),
        max_tokens=_amount("max_tokens", parse_token_budget, max_tokens),
    )


def _amount(name: str, read: Callable[[Any], int], value: float | str | None) -> int | None:
    if value is None:
        return None
    try:
        return read(value)
    except PydanticCustomError as error:
        raise UsageError(f"{name}: {error.message()}") from None


def _check_steps(steps: Sequence[Step]) -> None:
    if isinstance(steps, Step) or not all(isinstance(step, Step) for step in steps):
        raise TypeError("steps must be a list of Step(...)")


def _refuse_to_nest() -> None:
    """Refuses to run in a worker, which a script without a main guard would do without end."""
    celery = sys.modules.get("celery")
    if celery is not None and celery.current_task:
        raise UsageError(
            "a pipeline cannot be started by a task. If a worker only imported your script, put "
            'the call under `if __name__ == "__main__":`'
        )


def _text(value: Any) -> str:
    """A param's value as the command line would give it."""
    return value if isinstance(value, str) else json.dumps(value)


def _planned(manifest: Manifest, settings: Settings, *, verbose: bool) -> Plan:
    require_sound_simulators(manifest)
    plan = make_plan(manifest)
    if not settings.broker_url:  # there the calls are made elsewhere, with keys of their own
        require_keys(manifest, plan)
    view = PlainView() if verbose else LoggedView()
    for warning in plan.warnings:
        view.note(f"warning: {warning}")
    return plan


def _rerun(plan: Plan, lock: str, ids: Sequence[str | int], settings: Settings) -> Task:
    services = build_services(settings, patience_s=COMMAND_PATIENCE_S)
    base = load_run(find_run(f"{plan.pipeline}@latest", services))
    wanted = [ids] if isinstance(ids, str) else [str(one) for one in ids]
    chosen = choose_ids(base, wanted)

    def begin(services: Services) -> RunInfo:
        return create_rerun(
            base, chosen, services, now=time.time(), plan=plan, lock_text=lock, note=plan.notes
        )

    return Task(plan, begin, start)


def _submitted(
    manifest: Manifest, plan: Plan, settings: Settings, *, verbose: bool, wait: bool = True
) -> Run:
    found = prepare(manifest, plan, settings)
    view = PlainView() if verbose else LoggedView()
    for note in found.notes:
        view.note(note)
    if found.task is None:
        return Run.load(found.base, local=not settings.broker_url)
    return _driven(found.task, settings, verbose=verbose, wait=wait)


def _driven(task: Task, settings: Settings, *, verbose: bool, wait: bool = True) -> Run:
    # A program's own way of ending on SIGTERM and SIGHUP is left alone.
    interrupts = Interrupts((signal.SIGINT,))
    view = PlainView if verbose else LoggedView
    driven = run_task(task, settings, Wishes(view, interrupts=interrupts, detach=not wait))
    if driven.ended is None:
        return Run.load(driven.info.run)
    seen = driven.ended.progress
    is_paused = seen.state is RunState.PAUSED and seen.reason == INTERRUPTED
    if interrupts.is_set and (is_paused or not driven.ended.is_over):
        raise KeyboardInterrupt(f"{seen.pipeline}@{seen.version}")
    return Run(seen)
