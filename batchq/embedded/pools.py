"""Which workers a plan needs, and which of its providers are simulators to be started."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from batchq.embedded.stack import Stack
from batchq.endpoint import ProviderSpec
from batchq.plan import Plan, StageSpec, StepPlan
from batchq.planning.estimate import calls_at_once
from batchq.queue.names import CONTROL_QUEUE

THREADS = "OMP_NUM_THREADS"
"""What NumPy, PyTorch and others go by."""
SIMULATOR_KIND = "simulator"


@dataclass(frozen=True, slots=True)
class Pool:
    """One worker: threads for calls that wait, processes for work that computes."""

    queue: str
    kind: Literal["threads", "prefork"]
    slots: int


def pools_of(
    plan: Plan, *, concurrency: int | None = None, workers: int | None = None
) -> tuple[Pool, ...]:
    """The pools for the queues of a plan.

    `concurrency` is the number of calls at a time, `workers` that of processes; without them the
    providers' own limits, else the batches in flight that the manifest wants, and the cores of
    this machine decide.
    """
    pools: dict[str, Pool] = {}
    for step in plan.steps:
        calls = any(stage.kind == "prompt" for stage in step.spec.stages)
        threads = concurrency or calls_at_once(step.spec, step.pacing)
        wanted = threads if calls else workers or (os.cpu_count() or 1)
        before = pools.get(step.queue)
        slots = max(wanted, before.slots if before else 1)
        is_mixed = before is not None and (before.kind == "threads") != calls
        kind: Literal["threads", "prefork"] = "threads" if calls and not is_mixed else "prefork"
        pools[step.queue] = Pool(step.queue, kind, slots)
    return tuple(pools.values())


def simulators_of(plan: Plan) -> dict[str, ProviderSpec]:
    """The plan's providers of kind simulator that name no server of their own."""
    return {
        stage.provider.name: stage.provider
        for step in plan.steps
        for stage in step.spec.stages
        if stage.provider is not None
        and stage.provider.kind == SIMULATOR_KIND
        and not stage.provider.base_url
    }


def with_base_urls(plan: Plan, urls: Mapping[str, str]) -> Plan:
    """Points providers, by name, to the servers that were started for them."""

    def in_stage(stage: StageSpec) -> StageSpec:
        if stage.provider is None:
            return stage
        return replace(stage, provider=placed(stage.provider))

    def placed(provider: ProviderSpec) -> ProviderSpec:
        if provider.name not in urls:
            return provider
        return replace(provider, base_url=urls[provider.name], is_started=True)

    def in_step(step: StepPlan) -> StepPlan:
        stages = tuple(map(in_stage, step.spec.stages))
        limited = {name: placed(one) for name, one in step.spec.providers.items()}
        return replace(step, spec=replace(step.spec, stages=stages, providers=limited))

    return replace(plan, steps=tuple(map(in_step, plan.steps)))


def task_modules(plan: Plan) -> tuple[str, ...]:
    """The modules whose functions a plan calls."""
    names = [stage.task for step in plan.steps for stage in step.spec.stages]
    names += [stage.setup for step in plan.steps for stage in step.spec.stages]
    names += [step.spec.stats.function for step in plan.steps if step.spec.stats]
    names += [step.output.collate for step in plan.steps]
    return tuple(sorted({name.partition(":")[0] for name in names if name}))


def launch_workers(stack: Stack, plan: Plan, pools: tuple[Pool, ...]) -> None:
    """Starts the coordinator and the workers, which find the tasks beside the manifest.

    They may run the tasks that the plan names: who submits here trusts the manifest.
    """
    launch_coordinator(stack, plan)
    for pool in pools:
        name = f"batchq.{pool.queue}"
        env = _task_env(stack, plan) | thread_env(pool)
        stack.launch_worker(pool.queue, name, pool.kind, pool.slots, env)


def thread_env(pool: Pool) -> dict[str, str]:
    """Shares the cores out among processes whose libraries would each start a thread a core."""
    if pool.kind != "prefork" or THREADS in os.environ:
        return {}
    return {THREADS: str(max(1, (os.cpu_count() or 1) // pool.slots))}


def launch_coordinator(stack: Stack, plan: Plan) -> None:
    """Starts a coordinator, which may run the plan's collate functions."""
    stack.launch_worker("coordinator", CONTROL_QUEUE, "threads", 1, _task_env(stack, plan))


def _task_env(stack: Stack, plan: Plan) -> dict[str, Any]:
    path = (plan.base_dir, str(Path.cwd()), os.environ.get("PYTHONPATH", ""))
    return {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, path))),
        "BATCHQ_TASKS": json.dumps([*stack.settings.tasks, *task_modules(plan)]),
    }


def launch_simulators(stack: Stack, plan: Plan) -> dict[str, Path]:
    """Starts the plan's simulators; gives, by provider, what `Stack.read_url` wants."""
    return {
        name: stack.launch_simulator(name, provider.simulator)
        for name, provider in simulators_of(plan).items()
    }
