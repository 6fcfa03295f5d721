"""Turns a manifest into a plan: steps, their items counted, their cost estimated."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from batchq.errors import PlanError, TaskError, UsageError
from batchq.expand import warnings_of
from batchq.guided import Guide
from batchq.manifest.checks import near
from batchq.manifest.experiment import SOURCE, experiment_of, pacing_of, report_spec
from batchq.manifest.loader import check_environment
from batchq.manifest.models import Manifest, Step
from batchq.manifest.scalars import share_of
from batchq.outcome import Json, SentPrompt
from batchq.plan import (
    InputSpec,
    Item,
    OutputSpec,
    Pacing,
    Plan,
    StageSpec,
    StepPlan,
    StepSpec,
    Tolerance,
)
from batchq.planning.caps import budget_warnings, plan_budget, plan_canary
from batchq.planning.estimate import SAMPLE, estimate_step, slots_of
from batchq.planning.items import read_items
from batchq.planning.lock import manifest_lock
from batchq.planning.reference import read_guide
from batchq.planning.specs import Planning, build_spec
from batchq.planning.uploads import plan_uploads
from batchq.text.conditions import compile_condition
from batchq.text.prompts import flatten, names, render

__all__ = ["iter_items", "make_plan", "manifest_lock", "pipeline_name", "render_item"]

_UNSAFE = re.compile(r"[^\w.-]+")


def make_plan(
    manifest: Manifest,
    *,
    env: Mapping[str, str] | None = None,
    slots: Mapping[str, int] | None = None,
) -> Plan:
    """Plans a run: reads prompts, schemas and inputs, and estimates every step.

    Args:
        manifest: What `load_manifest` gave, with inputs pinned.
        env: The environment, for `${env:NAME}` in prompts.
        slots: How many items the workers of a queue run at a time, by queue. Without it, as many
            as the workers have that a submit starts.

    Raises:
        ManifestError: there is a budget in dollars, and a model has no price.
        PlanError: an input is broken or empty, a prompt asks for a field that items do not have,
            or a step needs one that is not part of this run.
    """
    have = os.environ if env is None else env
    planning = Planning(manifest, have, slots or {})
    has_file = manifest.origin.path.is_file()  # none if it was put together in memory
    if has_file:
        planning.note("manifest", manifest.origin.path.read_bytes())
    for number, step in enumerate(manifest.steps, start=1):
        planning.done[step.name] = _plan_step(planning, step, number)
    steps = tuple(planning.done.values())
    problems = check_environment(manifest, have, only=called_providers(steps))
    planning.warnings[:0] = [str(problem) for problem in problems]
    budget = plan_budget(manifest, steps)
    planning.warnings += budget_warnings(budget, steps)
    return Plan(
        name=manifest.name,
        pipeline=pipeline_name(manifest.name, manifest.labels),
        labels=dict(manifest.labels),
        status=manifest.status,
        notes=manifest.notes,
        output_dir=manifest.config.output_dir,
        manifest_path=str(manifest.origin.path.absolute()) if has_file else "",
        base_dir=str(manifest.base_dir.absolute()),
        params=dict(manifest.origin.params),
        steps=steps,
        hashes=planning.hashes,
        warnings=tuple(planning.warnings),
        budget=budget,
        canary=plan_canary(manifest),
        report=report_spec(manifest),
        notify=tuple(hook.planned() for hook in manifest.notify),
        rounds=manifest.rounds or 1,
    )


def pipeline_name(name: str, labels: Mapping[str, Any]) -> str:
    """The name of the output folder: NAME_module_4_path_a, safe on every file system."""
    parts = [name, *(f"{key}_{value}" for key, value in labels.items())]
    return _UNSAFE.sub("-", "_".join(parts)).strip(".-")[:150] or "pipeline"


def called_providers(steps: Iterable[StepPlan]) -> set[str]:
    """The names of the providers that steps call."""
    stages = [stage for step in steps for stage in step.spec.stages]
    return {stage.provider.name for stage in stages if stage.provider is not None}


def iter_items(plan: Plan, number: int, previous: Iterable[Json] | None = None) -> Iterator[Item]:
    """Streams the items of a step; `previous` is the collated output that it may read."""
    step = plan.step(number)
    return read_items(step.input, plan.base_dir, previous, params=step.spec.params)


def render_item(plan: Plan, number: int, item_id: str) -> list[SentPrompt]:
    """Renders what one item would send; stages that need the answers before them are left out.

    Raises:
        PlanError: the step's input is not there yet, or a prompt asks for a missing field.
        UsageError: no item has this id.
    """
    step = plan.step(number)
    if not step.input.source:
        raise PlanError(
            f"step {step.spec.name} reads the output of {step.needs[-1]}, which is not there yet"
        )
    item = next((item for item in iter_items(plan, number) if item.id == item_id), None)
    if item is None:
        first = ", ".join(each.id for each in islice(iter_items(plan, number), 5))
        message = f"step {step.spec.name} has no item `{item_id}`; its ids are such as {first}"
        raise UsageError(message)
    sent = []
    for position, stage in enumerate(step.spec.stages):
        if stage.kind == "prompt":
            try:
                sent.append(SentPrompt(stage.name, _rendered(stage, item.data)))
            except TaskError as error:
                if position == 0:
                    raise PlanError(f"step {step.spec.name}: item {item_id}: {error}") from error
    return sent


def _rendered(stage: StageSpec, data: Json) -> str:
    text = render(stage.prompt, data, is_jinja=stage.prompt_is_jinja)
    if not stage.system:
        return text
    return f"{render(stage.system, data, is_jinja=stage.system_is_jinja)}\n\n---\n\n{text}"


def _plan_step(planning: Planning, step: Step, number: int) -> StepPlan:
    spec = build_spec(planning, step, number)
    needs = _needs(planning, step)
    source = _input(planning, step, needs, spec)
    if source.experiment is not None:
        planning.warnings += warnings_of(source.experiment)
    is_chosen = "concurrent_batches" in step.model_fields_set
    pacing = Pacing(step.batch_size, step.concurrent_batches, step.batch_delay, is_chosen)
    if source.source:
        count, sample = _count(planning, step, source, spec)
        _check_prompts(step, spec, sample)
        _warn_of_conditions(planning, spec, sample)
    else:
        count, sample = _guess_count(planning.done[needs[-1]], source), []
        _warn_of_names(planning, spec, planning.done[needs[-1]], source)
    is_paced = {"batch_size", "concurrent_batches"} & step.model_fields_set
    if source.experiment is not None and not is_paced:
        pacing = pacing_of(count, step.batch_delay)
    queue = step.queue or _queue(spec)
    slots = slots_of(spec, pacing, queue, planning.slots)
    online = estimate_step(spec, sample, count, pacing, slots)
    estimate, uploads = plan_uploads(planning, step, spec, online)
    return StepPlan(
        spec=spec,
        input=source,
        output=_output(planning, step, source),
        pacing=pacing,
        queue=queue,
        needs=needs,
        tolerance=_tolerance(step),
        items=count,
        items_are_estimated=not source.source,
        batches=-(-count // pacing.batch_size),
        calls=estimate.calls,
        input_tokens=estimate.input_tokens,
        output_tokens=estimate.output_tokens,
        cost_usd=estimate.cost_usd,
        duration_s=estimate.duration_s,
        bound_by=estimate.bound_by,
        skip_existing=step.skip_existing,
        uploads=uploads,
    )


def _needs(planning: Planning, step: Step) -> tuple[str, ...]:
    """The steps to wait for: those named, else the one before if its output is read."""
    if step.needs is not None:
        missing = [name for name in step.needs if name not in planning.done]
        if missing:
            raise PlanError(f"step {step.name} needs {missing[0]}, which is not part of this run")
        return tuple(step.needs)
    before = [*planning.done][-1:]
    if step.input is None and not before:
        raise PlanError(
            f"step {step.name} reads the output of the step before it, which is not part of this "
            "run; give it an `input`, or start with an earlier step"
        )
    return tuple(before)


def _input(planning: Planning, step: Step, needs: tuple[str, ...], spec: StepSpec) -> InputSpec:
    sample = step.sample
    source = step.input or ""
    if not source and not needs:
        raise PlanError(f"step {step.name}: `needs: []` leaves it without an input; give it one")
    id_field = step.id_field
    if not source and not id_field:
        id_field = _kept_id(planning.done[needs[-1]])
    return InputSpec(
        source=source,
        id_field=id_field,
        only=None if step.only is None else tuple(step.only),
        skip=tuple(step.skip),
        limit=step.limit,
        sample_n=sample.n if sample else None,
        sample_method=sample.method if sample else "random",
        sample_seed=sample.seed if sample else 0,
        whole=step.once or not step.batch_mode,
        written=planning.manifest.origin.pinned.get(step.name, ""),
        experiment=experiment_of(planning.manifest) if source == SOURCE else None,
        guide=_guide(planning, step, spec.params),
    )


def _guide(planning: Planning, step: Step, params: Mapping[str, Any]) -> Guide | None:
    """Reads what a guided sample goes by, now: the run is to choose by what it was planned with."""
    sample, base_dir = step.sample, planning.manifest.base_dir
    if sample is None or sample.method != "guided":
        return None
    by, reference = sample.by or [], sample.reference or ""  # they are there: checks
    try:
        guide = read_guide(by, reference, sample.existing, base_dir, params)
    except PlanError as error:
        raise PlanError(f"step {step.name}: {error}") from error
    path = base_dir / reference
    if path.is_file():
        planning.note(f"reference:{reference}", path.read_bytes())
    return guide


def _kept_id(before: StepPlan) -> str:
    """The field that carries an item's id into the next step, so that it keeps its name."""
    if before.input.whole or before.output.collate:
        return ""
    schema = before.spec.stages[-1].output_schema or {}
    is_mapping = len(before.spec.stages) > 1 or schema.get("type") == "object"
    if before.output.source_id_field and is_mapping:
        return f"source_{before.output.source_id_field}"
    required = schema.get("required")
    is_sure = isinstance(required, list) and before.input.id_field in required
    return before.input.id_field if is_sure else ""


def _output(planning: Planning, step: Step, source: InputSpec) -> OutputSpec:
    steps = planning.manifest.steps
    later = steps[steps.index(step) + 1 :]
    is_asked = any(one.id_field == source.id_field and not one.input for one in later)
    is_chained = bool(step.id_field) and not source.source
    is_kept = not source.whole and bool(source.id_field) and (is_asked or is_chained)
    before = None if source.source else planning.done[_needs(planning, step)[-1]].output
    is_number = before is not None and (
        before.id_field == source.id_field
        or (before.kept_id_is_number and before.kept_id_field == source.id_field)
    )
    return OutputSpec(
        file=step.output_file or f"{pipeline_name(step.name, {})}.json",
        id_field=step.output_id_field,
        id_start=step.id_start,
        source_id_field=(source.id_field or "id") if step.output_id_field else "",
        kept_id_field=source.id_field if is_kept else "",
        kept_id_is_number=is_kept and is_number,
        dedup_by=tuple(step.dedup.by) if step.dedup else (),
        dedup_keep=step.dedup.keep if step.dedup else "first",
        collate=step.collate or "",
    )


def _tolerance(step: Step) -> Tolerance:
    if step.stop_on_error:
        return Tolerance(max_failures=0)
    count, share = share_of(step.max_failures)
    return Tolerance(count, share)


def _queue(spec: StepSpec) -> str:
    """`llm` as soon as one stage calls a model: it waits more than it works."""
    return "llm" if any(stage.kind == "prompt" for stage in spec.stages) else "cpu"


def _count(
    planning: Planning, step: Step, source: InputSpec, spec: StepSpec
) -> tuple[int, list[Item]]:
    """Reads the whole input once, which checks and hashes it; keeps the first items."""
    base_dir = planning.manifest.base_dir
    path = base_dir / source.source
    is_file = not source.source.startswith(("py:", "generate:", SOURCE)) and path.is_file()
    digest = hashlib.sha256()
    sample: list[Item] = []
    count = 0
    try:
        for item in read_items(source, base_dir, params=spec.params):
            count += 1
            if count <= SAMPLE:
                sample.append(item)
            if not is_file:
                digest.update(json.dumps(item.data, sort_keys=True).encode())
    except PlanError as error:
        raise PlanError(f"step {step.name}: {error}") from error
    if is_file:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    planning.hashes[f"input:{source.source}"] = digest.hexdigest()
    return count, sample


def _guess_count(before: StepPlan, source: InputSpec) -> int:
    """As many items as the step before has, until its output is there."""
    if source.whole:
        return 1
    bounds = [bound for bound in (source.sample_n, source.limit) if bound is not None]
    if before.input.whole and bounds:
        return min(bounds)  # one call over everything may give any number of items
    count = before.items
    if source.only is not None:
        count = min(count, len(source.only))
    for bound in (source.sample_n, source.limit):
        count = count if bound is None else min(count, bound)
    return count


def _check_prompts(step: Step, spec: StepSpec, sample: list[Item]) -> None:
    """Renders the first stage for the first items, so that a missing field costs nothing."""
    stage = spec.stages[0]
    for item in sample:
        try:
            if stage.kind == "prompt":
                _rendered(stage, item.data)
            for part in stage.command:
                render(part, item.data, is_jinja=False)
        except TaskError as error:
            where = stage.prompt_file or stage.kind
            raise PlanError(f"step {step.name}: {where}: item {item.id}: {error}") from error


def _warn_of_conditions(planning: Planning, spec: StepSpec, sample: list[Item]) -> None:
    """Says which names of `when:` no item has: each is null there, which may be a slip."""
    known = {name for item in sample for name in flatten(item.data)}
    for stage in spec.stages:
        asked = compile_condition(stage.when).names if stage.when else ()
        for name in asked:
            if name not in known and name.partition("__")[0] not in known:
                hint = near(name, sorted(known), "names")
                planning.warnings.append(
                    f"step {spec.name}: stage {stage.name}: `when` asks for `{name}`, which none "
                    f"of the first items has; it is null there: {hint}"
                )
        fields = (stage.output_schema or {}).get("properties")
        if not isinstance(fields, Mapping):
            return  # whatever this stage gives, later ones may ask for
        known |= {stage.name, *fields}


def _warn_of_names(planning: Planning, spec: StepSpec, before: StepPlan, source: InputSpec) -> None:
    """Compares the fields that a step asks for with the schema of the answers that it will read."""
    stage, schema = spec.stages[0], before.spec.stages[-1].output_schema
    fields = (schema or {}).get("properties")
    is_plain = len(before.spec.stages) == 1 and not before.output.collate and not source.whole
    if stage.kind != "prompt" or not isinstance(fields, Mapping) or not is_plain:
        return
    output = before.output
    added = (output.id_field, output.kept_id_field, f"source_{output.source_id_field}")
    given = {*fields, "item", *added}
    for name in names(stage.prompt, is_jinja=stage.prompt_is_jinja):
        if name.partition("__")[0] not in given and name not in given:
            planning.warnings.append(
                f"step {spec.name}: the prompt asks for `{name}`, which the output_schema of step "
                f"{before.spec.name} does not have; it has: {', '.join(fields)}"
            )
