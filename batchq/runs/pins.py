"""Pins the inputs of a manifest that say `latest`: to one version, once, before it is planned.

So whatever happens to `latest` meanwhile, a run reads one version, and a resume the same one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from batchq.errors import BatchqError, ManifestError, PlanError, Problem
from batchq.manifest.checks import RUN_SOURCE, near
from batchq.manifest.experiment import SOURCE
from batchq.manifest.loader import problem_at
from batchq.manifest.models import Manifest
from batchq.plan import Plan, is_remote
from batchq.planning import planner
from batchq.progress import RunState
from batchq.settings import load_settings

if TYPE_CHECKING:
    from batchq.store import Metadata, Outputs, RunFolder

LATEST = "latest"
READABLE = (".json", ".jsonl", ".csv")


def pin_inputs(manifest: Manifest) -> Manifest:
    """Replaces `run:NAME@latest/STEP`, and paths through a `latest` link, by the file they mean.

    What is on an object store is copied to the home folder.

    Raises ManifestError with every input that means none.
    """
    pinned: dict[str, str] = {}
    problems: list[Problem] = []
    for step in manifest.steps:
        source = step.input
        if source is None or source.startswith(("py:", "generate:", SOURCE)):
            continue
        try:
            found = _pinned(manifest, source)
        except BatchqError as error:
            raw = manifest.origin.data.get("steps", [])
            at = next((n for n, one in enumerate(raw) if one.get("name") == step.name), 0)
            problems.append(problem_at(manifest, ("steps", at, "input"), str(error)))
            continue
        if found != source:
            pinned[step.name] = found
    if problems:
        raise ManifestError(problems)
    if not pinned:
        return manifest
    steps = [
        step.model_copy(update={"input": pinned[step.name]}) if step.name in pinned else step
        for step in manifest.steps
    ]
    written = {step.name: step.input or "" for step in manifest.steps if step.name in pinned}
    origin = replace(manifest.origin, pinned={**manifest.origin.pinned, **written})
    return manifest.model_copy(update={"steps": steps}).with_origin(origin)


def pin_problems(manifest: Manifest) -> list[Problem]:
    """Lists the inputs that name a version, step or file of a run that is not there."""
    try:
        pin_inputs(manifest)
    except ManifestError as error:
        return list(error.problems)
    return []


def make_plan(
    manifest: Manifest,
    *,
    env: Mapping[str, str] | None = None,
    slots: Mapping[str, int] | None = None,
) -> Plan:
    """Plans a run: pins and reads its inputs, prompts and schemas, and estimates every step.

    Args:
        manifest: What `load_manifest` gave.
        env: The environment, for `${env:NAME}` in prompts.
        slots: How many items the workers of a queue run at a time, by queue.

    Raises:
        ManifestError: an input names a version that is not there.
        PlanError: an input is broken or empty, a prompt asks for a field that items do not have,
            or a step needs one that is not part of this run.
    """
    return planner.make_plan(pin_inputs(manifest), env=env, slots=slots)


def _pinned(manifest: Manifest, source: str) -> str:
    if is_remote(source):
        return _fetched(source)
    matched = RUN_SOURCE.fullmatch(source)
    if matched is None:
        return _through_links(source, manifest.base_dir)
    from batchq.store import Outputs  # fsspec takes time that other manifests do not need

    outputs = Outputs(manifest.config.output_dir, str(manifest.base_dir.absolute()))
    folder = _version(outputs, matched["pipeline"], matched["version"])
    path = _collated(folder, matched["pipeline"], matched["step"])
    if is_remote(path):
        return _fetched(path)
    base = manifest.base_dir.absolute()
    return os.path.relpath(path, base) if Path(path).is_relative_to(base) else path


def _fetched(url: str) -> str:
    from batchq.runs.fetch import fetch, pin_url  # with the store's client it takes half a second

    return str(fetch(pin_url(url), load_settings().home.absolute()))


def _through_links(source: str, base_dir: Path) -> str:
    """The path with each `latest` that is a link replaced by the version it points at."""
    parts = list(Path(source).parts)
    for at, part in enumerate(parts):
        link = base_dir.joinpath(*parts[: at + 1])
        if part == LATEST and link.is_symlink():
            parts[at] = os.fspath(link.readlink())
    found = Path(*parts) if parts else Path()
    return source if found == Path(source) else os.fspath(found)


def _version(outputs: Outputs, pipeline: str, wanted: str) -> RunFolder:
    known = outputs.versions(pipeline)
    if not known or wanted in known:
        return outputs.open_version(pipeline, wanted)  # which says it if there is none
    if wanted == LATEST:
        found = outputs.latest(pipeline)
        if found is None:
            raise PlanError(_no_latest(outputs, pipeline, known))
        return outputs.open_version(pipeline, found)
    if wanted[:1] == "v" and wanted[1:].isdecimal():
        if outputs.exists(pipeline, wanted):
            raise PlanError(
                f"{pipeline}@{wanted} has no plan.json: a part of the version was deleted, or it "
                f"was never planned; there are {', '.join(known)}"
            )
        return outputs.open_version(pipeline, wanted)
    told = {name: _metadata(outputs.open_version(pipeline, name)) for name in known}
    for name in reversed(known):
        about = told[name]
        if about and about.pipeline_status == wanted and about.status == RunState.COMPLETED:
            return outputs.open_version(pipeline, name)
    words = ", ".join(f"{name} {about.pipeline_status}" for name, about in told.items() if about)
    raise PlanError(f"{pipeline} has no complete version that is {wanted}; there are {words}")


def _metadata(folder: RunFolder) -> Metadata | None:
    return folder.read_metadata() if folder.files.exists("metadata.json") else None


def _no_latest(outputs: Outputs, pipeline: str, known: list[str]) -> str:
    listed = ", ".join(known)
    gone = outputs.pointer(pipeline)
    if gone:
        return (
            f"{pipeline}@latest points at {gone}, which is not there: name another version "
            f"({listed}), or restore it"
        )
    return (
        f"{pipeline} has no latest: none of its versions is complete ({listed}); wait for one, "
        "or name a version whose step is done"
    )


def _collated(folder: RunFolder, pipeline: str, wanted: str | None) -> str:
    name = f"{pipeline}@{folder.version}"
    steps = {step.spec.name: step.spec.number for step in folder.read_plan().steps}
    by_number = {str(number): number for number in steps.values()}
    if wanted is None:
        number = [*steps.values()][-1]
    elif wanted in steps or wanted in by_number:
        number = steps.get(wanted) or by_number[wanted]
    else:
        raise PlanError(f"{name} has no step {wanted}; {near(wanted, [*steps], 'its steps')}")
    step = folder.read_plan().step(number).spec.name
    if number not in folder.done_steps():
        raise PlanError(
            f"step {step} of {name} is not done: wait for its end, or `batchq resume {name}`"
        )
    found = [one for one in folder.files.names("collated") if one.startswith(f"{number:02d}_")]
    if not found:
        raise PlanError(
            f"the output of step {step} of {name} is gone: a part of the version was deleted from "
            f"{folder.url}; restore it, or name another version"
        )
    if not found[0].lower().endswith(READABLE):
        raise PlanError(
            f"{name} wrote collated/{found[0]}, which no step can read: give that step an "
            "output_file in .json or .jsonl"
        )
    path = f"collated/{found[0]}"
    folder.files.exists(path)  # which raises StoreError for a link
    return folder.files.full(path)
