"""Says how the work of a step differs from what it was in another version: pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from batchq.endpoint import ProviderSpec
from batchq.outcome import Json
from batchq.plan import InputSpec, StageSpec, StepPlan

SHOWN = 4


def short_hash(value: Json) -> str:
    """The first digits of a value's hash, as people compare them."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:SHOWN]


def work_changes(before: StepPlan, now: StepPlan) -> list[str]:
    """What would give other outputs for the same item, such as "prompt changed a1f3 -> 9c02".

    Retries, limits, timeouts, prices and pacing would not. Nobody sees here whether the code of a
    Python function or a program is another one.
    """
    old, new = before.spec, now.spec
    if [one.name for one in old.stages] != [one.name for one in new.stages]:
        return ["stages changed"]
    found = []
    for was, stage in zip(old.stages, new.stages, strict=True):
        place = f"stage {stage.name}: " if stage.name else ""
        found += [f"{place}{change}" for change in _stage_changes(was, stage)]
    if any(stage.kind == "task" for stage in new.stages) and old.params != new.params:
        names = {*old.params, *new.params}
        differ = sorted(one for one in names if old.params.get(one) != new.params.get(one))
        found.append(f"params changed: {', '.join(differ)}")
    return found


def selection_changes(before: StepPlan, now: StepPlan) -> bool:
    """Whether a step that reads the output before it takes other items of it, or calls them so."""
    return _selection(before.input) != _selection(now.input) or before.needs != now.needs


def _selection(spec: InputSpec) -> InputSpec:
    return replace(spec, source="", written="")


def _stage_changes(old: StageSpec, new: StageSpec) -> list[str]:
    if old.kind != new.kind:
        return [f"a {old.kind} became a {new.kind}"]
    found = []
    for name, was, now in (
        ("prompt", old.prompt, new.prompt),
        ("system prompt", old.system, new.system),
        ("output_schema", old.output_schema, new.output_schema),
        ("command", old.command, new.command),
        ("setup", old.setup, new.setup),
    ):
        if was != now:
            found.append(f"{name} changed {short_hash(was)} -> {short_hash(now)}")
    how = (old.prompt_is_jinja, old.system_is_jinja)
    if not found and how != (new.prompt_is_jinja, new.system_is_jinja):
        found.append("prompt changed its template language")
    if old.task != new.task:
        found.append(f"task changed {old.task} -> {new.task}")
    if old.when != new.when:
        found.append(f"condition changed {old.when or 'always'} -> {new.when or 'always'}")
    if old.options != new.options:
        found.append(f"options changed: {_differing(old.options, new.options)}")
    if old.provider is not None and new.provider is not None:
        found += _provider_changes(old.provider, new.provider)
    return found


def _provider_changes(old: ProviderSpec, new: ProviderSpec) -> list[str]:
    found = []
    if old.model != new.model:
        found.append(f"model changed {old.model} -> {new.model}")
    if (old.kind, _address(old)) != (new.kind, _address(new)):
        found.append(f"provider changed {old.name} -> {new.name}")
    elif old.simulator != new.simulator:
        found.append(f"simulator changed: {_differing(old.simulator, new.simulator)}")
    return found


def _address(provider: ProviderSpec) -> str:
    """Where it is called; a simulator that batchq starts is elsewhere in each run."""
    return "" if provider.is_started else provider.base_url.rstrip("/")


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = sorted(one for one in {*old, *new} if old.get(one) != new.get(one))
    return ", ".join(f"{one} {_value(old, one)} -> {_value(new, one)}" for one in names)


def _value(options: Mapping[str, Any], name: str) -> str:
    text = json.dumps(options[name], default=str) if name in options else "none"
    return text if len(text) <= 30 else f"{text[:27]}..."
