"""Builds what a worker needs of a step: its texts and schemas read in, its provider filled in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from batchq.endpoint import CacheSpec, Limits, Prices, ProviderSpec, RateLimit
from batchq.errors import PlanError
from batchq.manifest.checks import BASE_URLS
from batchq.manifest.endpoints import Provider
from batchq.manifest.models import Manifest, Stage, Step, Work
from batchq.manifest.modes import mode_of
from batchq.manifest.placeholders import UnknownPlaceholder, resolve_text
from batchq.plan import Resources, RetryPolicy, StageKind, StageSpec, Stats, StepPlan, StepSpec
from batchq.planning.pricelist import load_prices
from batchq.planning.pricing import PriceTable, find_prices, has_list_prices, upload_share
from batchq.text.files import find_prompt, is_inline, read_schema, read_text

_MINUTE_S = 60.0


@dataclass
class Planning:
    """What is gathered while the steps are planned, in order."""

    manifest: Manifest
    env: Mapping[str, str]
    slots: Mapping[str, int]
    hashes: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    done: dict[str, StepPlan] = field(default_factory=dict)

    @cached_property
    def prices(self) -> PriceTable:
        """The prices of the user's project."""
        return load_prices(self.manifest.base_dir)

    def note(self, name: str, content: bytes) -> None:
        """Keeps the hash of something that the plan was made from."""
        self.hashes[name] = hashlib.sha256(content).hexdigest()


def build_spec(planning: Planning, step: Step, number: int) -> StepSpec:
    """Builds the spec of a step; raises PlanError if a file that it names cannot be read."""
    if step.stages is None:
        stages: tuple[StageSpec, ...] = (_stage(planning, step, step, ""),)
    else:
        stages = tuple(_stage(planning, step, stage, stage.name) for stage in step.stages)
    manifest, retry = planning.manifest, step.retry
    return StepSpec(
        number=number,
        name=step.name,
        stages=stages,
        params={
            **(manifest.config.model_extra or {}),
            **manifest.origin.params,
            **step.params,
        },
        retry=RetryPolicy(
            retry.max_retries, retry.backoff, retry.base, retry.max_delay, retry.jitter
        ),
        timeout_s=step.timeout,
        save_prompts=step.save_prompts,
        resources=_resources(step),
        stats=_stats(step),
        providers=_limited(planning) if any(one.kind == "task" for one in stages) else {},
        mode=mode_of(levels_of(planning.manifest, step)),
    )


def levels_of(manifest: Manifest, step: Step) -> tuple[Step | Provider, ...]:
    """The step, then the provider of its prompt, for what both can set."""
    if not step.prompt:
        return (step,)
    name = step.provider or next(iter(manifest.providers))
    return step, manifest.providers[name]


def _resources(step: Step) -> Resources | None:
    need = step.resources
    return None if need is None else Resources(need.slots, need.memory)


def _stats(step: Step) -> Stats | None:
    if not (step.save_stats or step.analyze or step.metrics):
        return None
    function = step.analyze if isinstance(step.analyze, str) else ""
    return Stats(bool(step.analyze or step.metrics), function, tuple(step.metrics or ()))


def _stage(planning: Planning, step: Step, work: Work, name: str) -> StageSpec:
    kind: StageKind = work.kinds[0]  # type: ignore[assignment]  # checks: exactly one of the three
    when = work.when if isinstance(work, Stage) else ""
    if kind != "prompt":
        return StageSpec(
            name,
            kind,
            task=work.task or "",
            command=tuple(work.command or ()),
            when=when,
            setup=work.setup or "",
        )
    prompt, prompt_is_jinja = _text(planning, work.prompt or "", "prompt")
    system, system_is_jinja = _text(planning, work.system or step.system or "", "system")
    return StageSpec(
        name=name,
        kind=kind,
        prompt=prompt,
        prompt_is_jinja=prompt_is_jinja,
        prompt_file="" if is_inline(work.prompt or "") else work.prompt or "",
        system=system,
        system_is_jinja=system_is_jinja,
        provider=_provider(planning, work.provider or step.provider, work.model or step.model),
        options={**step.options, **work.options},
        output_schema=_schema(planning, work.output_schema),
        when=when,
    )


def _text(planning: Planning, value: str, kind: str) -> tuple[str, bool]:
    """Reads a prompt in, with its `${...}` filled; says whether it is a Jinja2 one."""
    if not value:
        return "", False
    text, is_jinja = value, False
    if not is_inline(value):
        path = find_prompt(planning.manifest.base_dir, value)
        text, is_jinja = read_text(path, value), path.suffix == ".j2"
        planning.note(f"{kind}:{value}", path.read_bytes())
    try:
        return resolve_text(text, planning.manifest.origin.params, planning.env), is_jinja
    except UnknownPlaceholder as error:
        raise PlanError(
            f"{value if not is_inline(value) else kind}: {error}; {error.hint}"
        ) from error


def _schema(planning: Planning, value: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if not isinstance(value, str):
        return value
    path = planning.manifest.base_dir / value
    schema = read_schema(path, value)
    planning.note(f"schema:{value}", path.read_bytes())
    return schema


def _provider(planning: Planning, name: str | None, model: str | None) -> ProviderSpec:
    providers = planning.manifest.providers
    name = name or next(iter(providers))  # checks: the only one, where none is named
    provider = providers[name]
    made = _spec(planning, name, model or provider.model or "simulator")
    prices = provider.prices
    if prices is not None:
        known: Prices | None = Prices(prices.input_per_1m, prices.output_per_1m, prices.batch)
    else:
        known = find_prices(planning.prices, name, provider.kind, made.base_url, made.model)
    if known is None:
        warning = f"no prices for {provider.kind}/{made.model}: its cost is not counted"
        if not has_list_prices():
            warning += "; `pip install 'batchq[prices]'` brings the list prices of vendors"
        if warning not in planning.warnings:
            planning.warnings.append(warning)
    elif known.batch is None:
        known = replace(known, batch=upload_share(provider.kind, made.base_url))
    return replace(made, prices=known)


def _limited(planning: Planning) -> dict[str, ProviderSpec]:
    """The providers by name, for tasks that call them: what that costs is their business."""
    return {
        name: _spec(planning, name, provider.model)
        for name, provider in planning.manifest.providers.items()
    }


def _spec(planning: Planning, name: str, model: str) -> ProviderSpec:
    """A provider as it is called, without its prices."""
    provider = planning.manifest.providers[name]
    return ProviderSpec(
        name=name,
        kind=provider.kind,
        base_url=provider.base_url or BASE_URLS.get(provider.kind, ""),
        model=model,
        api_key_env=provider.api_key_env or "",
        limits=_limits(provider),
        timeout_s=provider.timeout,
        simulator=dict(provider.simulator),
        cache=None if provider.cache is None else CacheSpec(provider.cache.max_age),
        priority=planning.manifest.priority,
    )


def _limits(provider: Provider) -> Limits:
    limits = provider.limits
    rates = []
    if limits.rpm:
        rates.append(RateLimit("rpm", "requests", limits.rpm, _MINUTE_S))
    if limits.tpm:
        rates.append(RateLimit("tpm", "tokens", limits.tpm, _MINUTE_S))
    for rate in limits.rates:
        if rate.requests:
            name = f"{rate.requests} requests per {rate.per:g}s"
            rates.append(RateLimit(name, "requests", rate.requests, rate.per))
        if rate.tokens:
            name = f"{rate.tokens} tokens per {rate.per:g}s"
            rates.append(RateLimit(name, "tokens", rate.tokens, rate.per))
    return Limits(
        tuple(rates),
        limits.concurrency,
        limits.adaptive,
        limits.upload_lines,
        limits.upload_tokens,
    )
