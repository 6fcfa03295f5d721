"""Reads a manifest file into a `Manifest`, or tells everything that is wrong with it at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from batchq.errors import ManifestError, Problem, UsageError
from batchq.host.apikeys import read_api_key
from batchq.manifest.checks import check, near
from batchq.manifest.endpoints import Cache, Provider
from batchq.manifest.experiment import check_expansion, check_keys, jobs_like, with_jobs
from batchq.manifest.guards import overridden_bounds
from batchq.manifest.models import (
    STEP_ALIASES,
    TOP_ALIASES,
    Manifest,
    Origin,
    Place,
    Step,
    StepDefaults,
)
from batchq.manifest.modes import check_modes
from batchq.manifest.placeholders import bind, resolve
from batchq.manifest.rounds import check_rounds, with_round
from batchq.manifest.wording import report_errors
from batchq.manifest.yamlfile import Document, KeyPath, key_text, read_document

INHERITED = (*StepDefaults.model_fields, "system", "provider", "model", "options")
"""What `config` sets for every step."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line sets over the manifest.

    `only`, `skip` and `limit` are those of the first step that runs; `jobs` are patterns of the
    names of jobs, which are added to `only`. `steps` is a range by name
    or number, `A..B`, `A..`, `..B` or one of them. `concurrency` is how many items may be in
    flight: it becomes the limit of every provider, and bounds the batches of tasks and commands.
    `no_cache` asks anew for every answer; providers with a cache keep the new ones. `max_cost_nusd`
    and `max_tokens` are those of the budget; with `asks_nothing` a canary goes on by itself.
    """

    status: str | None = None
    note: str | None = None
    only: tuple[str, ...] | None = None
    jobs: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    limit: int | None = None
    steps: str | None = None
    concurrency: int | None = None
    no_cache: bool = False
    max_cost_nusd: int | None = None
    max_tokens: int | None = None
    asks_nothing: bool = False


NO_OVERRIDES = Overrides()


def load_manifest(
    path: Path | str,
    params: Mapping[str, str] | None = None,
    *,
    overrides: Overrides = NO_OVERRIDES,
    env: Mapping[str, str] | None = None,
) -> Manifest:
    """Loads a manifest with its includes, params, defaults and overrides all resolved.

    Args:
        path: The manifest file.
        params: What was given with `-p NAME=VALUE`.
        overrides: What else the command line sets.
        env: The environment, for `${env:NAME}`.

    Raises:
        ManifestError: with every problem of the file.
        UsageError: an override that fits no step.
    """
    manifest, problems = _load(Path(path), params or {}, os.environ if env is None else env)
    if manifest is None or problems:
        raise ManifestError(problems)
    return with_overrides(manifest, overrides)


def load_document(document: Document, path: Path) -> Manifest:
    """Loads a manifest that was put together in memory.

    Its paths start from the folder of `path`, which need not exist; problems are said to be there.
    Raises ManifestError with all of them.
    """
    manifest, problems = _load_document(document, path, {}, os.environ)
    if manifest is None or problems:
        raise ManifestError(problems)
    return manifest


def check_manifest(
    path: Path | str,
    params: Mapping[str, str] | None = None,
    *,
    env: Mapping[str, str] | None = None,
) -> list[Problem]:
    """Lists every problem of a manifest file; empty if it can be planned."""
    try:
        return _load(Path(path), params or {}, os.environ if env is None else env)[1]
    except ManifestError as error:
        return list(error.problems)


def problem_at(manifest: Manifest, key: KeyPath, message: str, hint: str = "") -> Problem:
    """A problem at a key of a manifest that was loaded, with its place in the file."""
    return _problem(manifest.origin.places, manifest.origin.path, key, message, hint)


def check_environment(
    manifest: Manifest,
    env: Mapping[str, str] | None = None,
    *,
    only: Collection[str] | None = None,
) -> list[Problem]:
    """Lists the keys that are not to be had here: a warning until a worker has to call.

    `only` names the providers to look at; without it, all of them.
    """
    have = os.environ if env is None else env
    problems = []
    for name, provider in manifest.providers.items():
        variable = provider.api_key_env
        is_asked = only is None or name in only
        if not (is_asked and variable):
            continue
        try:
            read_api_key(variable, have)
        except ValueError as error:
            key: KeyPath = ("providers", name, "api_key_env")
            hint = f"export {variable}=... where the workers start"
            problems.append(problem_at(manifest, key, str(error), hint))
    return problems


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a manifest, for editors; older names of keys are in it as deprecated."""
    schema = Manifest.model_json_schema()
    definitions = schema["$defs"]
    for alias, key in STEP_ALIASES.items():
        target = definitions["Step"]["properties"].get(key)
        if target is not None:
            definitions["Step"]["properties"][alias] = {**target, "deprecated": True}
    for alias, key in TOP_ALIASES.items():
        target = schema["properties"].get(key, {"type": ["string", "number"]})
        schema["properties"][alias] = {**target, "deprecated": True}
    param = {"$ref": "#/$defs/Param"}
    plain = {"type": ["string", "number", "boolean", "array"]}
    schema["properties"]["params"]["additionalProperties"] = {"anyOf": [param, plain]}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "batchq manifest"
    schema["anyOf"] = [{"required": ["steps"]}, {"required": ["task"]}]
    return schema


def explain(manifest: Manifest, key: str) -> list[str]:
    """Says for each step, or for a whole key path, what a key's value is and where it came from."""
    origin = manifest.origin
    name = key.rsplit(".", 1)[-1]
    name = STEP_ALIASES.get(name, name)
    lines = [f"{key} = {value} (command line)" for key, value in origin.commands.items()
             if key.rsplit(".", 1)[-1] == name]  # fmt: skip
    for index, step in enumerate(manifest.steps):
        if name in Step.model_fields and key in (name, f"{step.name}.{name}"):
            lines.append(_explained(manifest, index, name))
    for path, place in origin.places.items():
        written = key_text(path)
        if path[0] != "steps" and (written == key or (path[-1] == name and "." not in key)):
            value = _value_at(origin.data, path)
            lines.append(f"{written} = {value} ({place})")
    if not lines:
        known = [*Manifest.model_fields, *Step.model_fields, *Provider.model_fields]
        raise UsageError(f"nothing is called {key}: {near(name, known, 'keys')}")
    return lines


def _explained(manifest: Manifest, index: int, name: str) -> str:
    step, origin = manifest.steps[index], manifest.origin
    value = getattr(step, name)
    text = f"{step.name}.{name} = {value.model_dump() if hasattr(value, 'model_dump') else value}"
    at = next((at for at, raw in enumerate(origin.data.get("steps", []))
               if raw.get("name") == step.name), index)  # fmt: skip
    own = origin.places.get(("steps", at, name))
    default = origin.places.get(("config", name)) if name in INHERITED else None
    if own and default:
        return f"{text} (the step, {own}, over config, {default})"
    if own or default:
        return f"{text} ({'the step' if own else 'config'}, {own or default})"
    return f"{text} (the default)"


def _value_at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


def _problem(
    places: Mapping[KeyPath, Place], path: Path, key: KeyPath, message: str, hint: str
) -> Problem:
    """A problem at a key, or at the nearest key above it that stands in the file."""
    for depth in range(len(key), 0, -1):
        if place := places.get(key[:depth]):
            shown = key_text(key, places)
            return Problem(place.path, place.line, place.column, shown, message, hint)
    return Problem(str(path), 0, 0, key_text(key, places), message, hint)


def _load(
    path: Path, given: Mapping[str, str], env: Mapping[str, str]
) -> tuple[Manifest | None, list[Problem]]:
    return _load_document(read_document(path), path, given, env)


def _load_document(
    document: Document, path: Path, given: Mapping[str, str], env: Mapping[str, str]
) -> tuple[Manifest | None, list[Problem]]:
    problems = list(document.problems)

    def report(key: KeyPath, message: str, hint: str) -> None:
        problem = _problem(document.places, path, key, message, hint)
        if problem not in problems:
            problems.append(problem)

    data = _with_ids(document)
    declared = resolve(data.get("params", {}), {}, env, report, ("params",))
    declared = with_round(declared, data, report)
    values = bind(declared, given, report)
    data = {key: resolve(value, values, env, report, (key,))
            for key, value in data.items() if key != "params"}  # fmt: skip
    if isinstance(declared, dict):
        declared = {name: spec if isinstance(spec, dict) else {"default": spec}
                    for name, spec in declared.items()}  # fmt: skip
    data["params"] = declared
    manifest = _validated(data, document, report)
    check(data, path.parent, report)
    check_keys(data, report)
    check_modes(data, datetime.now(UTC), report)
    if manifest is not None and not problems:
        check_expansion(manifest, report)
        check_rounds(manifest, values, report)
    problems.sort(key=lambda problem: (problem.path != str(path), problem.line, problem.column))
    if manifest is None:
        return None, problems
    origin = Origin(path, document.places, {}, values, data)
    commands = {f"params.{name}": f"{value}" for name, value in values.items() if name in given}
    named = manifest if manifest.name else manifest.model_copy(update={"name": _stem(path)})
    return _with_defaults(with_jobs(named)).with_origin(
        replace(origin, commands=commands)
    ), problems


def _stem(path: Path) -> str:
    return path.name.split(".")[0] or "manifest"


def _with_ids(document: Document) -> dict[str, Any]:
    """Gives ids back the form they were written in: 007 is an id, not seven."""
    for key, text in document.raw.items():
        is_id = len(key) == 4 and key[0] == "steps" and key[2] in ("only", "skip")
        if is_id:
            document.data["steps"][key[1]][key[2]][key[3]] = text
    return document.data


def _validated(data: dict[str, Any], document: Document, report: Any) -> Manifest | None:
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        report_errors(error, document.places, data, report)
        return None


def _with_defaults(manifest: Manifest) -> Manifest:
    """Lays `config` under every step; `retry` and `options` are merged key by key."""
    config = manifest.config
    steps = []
    for step in manifest.steps:
        changes: dict[str, Any] = {}
        for key in INHERITED:
            if key not in config.model_fields_set:
                continue
            if key == "retry" and "retry" in step.model_fields_set:
                own = {name: getattr(step.retry, name) for name in step.retry.model_fields_set}
                changes[key] = config.retry.model_copy(update=own)
            elif key == "options":
                changes[key] = {**config.options, **step.options}
            elif key not in step.model_fields_set:
                changes[key] = getattr(config, key)
        steps.append(step.model_copy(update=changes))
    return manifest.model_copy(update={"steps": steps})


def with_overrides(manifest: Manifest, overrides: Overrides) -> Manifest:
    """A manifest with what is set over it; raises UsageError for what fits no step."""
    commands = dict(manifest.origin.commands)
    changes: dict[str, Any] = {}
    for key, value in (("status", overrides.status), ("notes", overrides.note)):
        if value is not None:
            changes[key] = commands[key] = value
    steps = _chosen_steps(manifest.steps, overrides.steps) if overrides.steps else manifest.steps
    first: dict[str, Any] = {}
    if overrides.only is not None:
        first["only"] = list(overrides.only)
    if overrides.jobs:
        first["only"] = [*first.get("only", ()), *jobs_like(manifest, overrides.jobs)]
    if overrides.skip:
        first["skip"] = [*steps[0].skip, *overrides.skip]
    if overrides.limit is not None:
        if overrides.limit < 1:
            raise UsageError(f"--limit must be at least 1, found {overrides.limit}")
        first["limit"] = overrides.limit
    commands.update({f"{steps[0].name}.{key}": str(value) for key, value in first.items()})
    steps = [steps[0].model_copy(update=first), *steps[1:]]
    if overrides.concurrency is not None:
        changes["providers"], steps = _bounded(manifest, steps, overrides.concurrency)
        commands["concurrency"] = str(overrides.concurrency)
    if overrides.no_cache:
        changes["providers"] = _asked_anew(changes.get("providers", manifest.providers))
        commands.update(
            {f"providers.{name}.cache": "{max_age: 0s}"
             for name, provider in manifest.providers.items() if provider.cache is not None}
        )  # fmt: skip
    guards, said = overridden_bounds(
        manifest.budget,
        manifest.canary,
        overrides.max_cost_nusd,
        overrides.max_tokens,
        asks_nothing=overrides.asks_nothing,
    )
    commands.update(said)
    changed = manifest.model_copy(update={**changes, **guards, "steps": steps})
    return changed.with_origin(replace(manifest.origin, commands=commands))


def _asked_anew(providers: Mapping[str, Provider]) -> dict[str, Provider]:
    return {
        name: provider
        if provider.cache is None
        else provider.model_copy(update={"cache": Cache(max_age=0.0)})
        for name, provider in providers.items()
    }


def _bounded(
    manifest: Manifest, steps: list[Step], at_most: int
) -> tuple[dict[str, Provider], list[Step]]:
    if at_most < 1:
        raise UsageError(f"--concurrency must be at least 1, found {at_most}")
    providers = {
        name: provider.model_copy(
            update={"limits": provider.limits.model_copy(update={"concurrency": at_most})}
        )
        for name, provider in manifest.providers.items()
    }
    bounded = []
    for step in steps:
        has_prompt = step.prompt or any(stage.prompt for stage in step.stages or ())
        if not has_prompt:
            size = min(step.batch_size, at_most)
            batches = max(1, min(step.concurrent_batches, at_most // size))
            changes = {"batch_size": size, "concurrent_batches": batches}
            bounded.append(step.model_copy(update=changes))
        else:
            bounded.append(step)
    return providers, bounded


def _chosen_steps(steps: list[Step], wanted: str) -> list[Step]:
    names = [step.name for step in steps]

    def position(text: str, default: int) -> int:
        if not text:
            return default
        if text in names:
            return names.index(text)
        if text.isdecimal() and 1 <= int(text) <= len(names):
            return int(text) - 1
        raise UsageError(f"--steps {wanted}: no step `{text}`; {near(text, names, 'steps')}")

    head, dots, tail = wanted.partition("..")
    start = position(head, 0)
    end = position(tail, len(names) - 1) if dots else start
    if start > end:
        raise UsageError(f"--steps {wanted}: {names[start]} comes after {names[end]}")
    return steps[start : end + 1]
