"""Looks up what bounds a run right now: its providers, the workers, its pacing or its budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchq.monitoring.bound import ProviderLoad, bound_by
from batchq.plan import StepSpec
from batchq.ports import BudgetUse
from batchq.progress import Progress, RunState, StepProgress
from batchq.services import Services

if TYPE_CHECKING:
    from batchq.limiter.desk import ProviderUse


def what_bounds(seen: Progress, services: Services) -> str:
    """Names what keeps a run from going faster; "" if it does not run, or nothing is known to."""
    if seen.state is not RunState.RUNNING:
        return ""
    steps = [step for step in seen.steps if step.state == "running"]
    specs = [spec for step in steps if (spec := services.ledger.spec(seen.run, step.number))]
    queued = max(0, sum(_sent(seen.run, step, services) for step in steps) - seen.in_flight)
    return bound_by(
        _loads(seen.run, specs, services),
        in_flight=seen.in_flight,
        slots=_slots(specs, services),
        queued=queued,
        has_more=any(_has_more(seen.run, step, services) for step in steps),
        budget="budget" if seen.budget and _is_held(seen.budget, seen.in_flight) else "",
        uploads=_uploads(seen, [step.number for step in steps]),
    )


def _uploads(seen: Progress, steps: Sequence[int]) -> str:
    """What keeps the next upload of a running step back, or whose answers it waits for."""
    here = [one for one in seen.uploads if one.step in steps]
    noted = next((one.note for one in here if one.note), "")
    waits = next((f"uploads at {one.provider}" for one in here if one.running), "")
    return noted or waits


def _open_batches(run: str, step: StepProgress, services: Services) -> int:
    return sum(number == step.number for number, _ in services.ledger.open_batches(run))


def _has_more(run: str, step: StepProgress, services: Services) -> bool:
    return step.collated + _open_batches(run, step, services) < step.batches


def _sent(run: str, step: StepProgress, services: Services) -> int:
    """How many of a step's items went out and have no outcome yet."""
    if not step.batches:
        return 0
    size = -(-step.total // step.batches)
    out = (step.collated + _open_batches(run, step, services)) * size
    return max(0, min(step.total, out) - step.summary.total)


def _loads(run: str, specs: Sequence[StepSpec], services: Services) -> list[ProviderLoad]:
    """How the providers of these steps are used; none of those that nobody called yet."""
    providers = [stage.provider for spec in specs for stage in spec.stages if stage.provider]
    providers += [one for spec in specs for one in spec.providers.values()]
    if not providers:
        return []
    from batchq.limiter import desk
    from batchq.limiter.keys import provider_key

    names = {provider_key(one) for one in providers}
    return [load_of(use, run) for use in desk.usage(services.redis) if use.key in names]


def load_of(use: ProviderUse, run: str) -> ProviderLoad:
    """A provider as one run meets it: its waiters are that run's."""
    used = {
        "rpm": use.requests_per_minute,
        "tpm": use.tokens_per_minute,
        "concurrency": float(use.in_flight),
    }
    return ProviderLoad(
        use.name,
        waiting=use.waiting.get(run, 0) + (run in use.away),
        # Of a limit over another time than a minute only its amount is known, not its use.
        limits=[(one.name, used.get(one.name, 0.0), one.amount or 0.0) for one in use.limits],
        breaker=use.breaker,
        paused_s=use.paused_s,
        blocked_by=use.blocked_by,
    )


def _slots(specs: Sequence[StepSpec], services: Services) -> int:
    """The slots of the workers that take these steps' items, or of all if none is known to."""
    wanted = {
        "batchq.llm" if any(stage.kind == "prompt" for stage in spec.stages) else "batchq.cpu"
        for spec in specs
    }
    workers = [one for one in services.ledger.alive().values() if one.get("role") == "worker"]
    fitting = [one for one in workers if wanted & {*str(one.get("queues", "")).split(",")}]
    return sum(int(one.get("slots", 0)) for one in fitting or workers)


def _is_held(use: BudgetUse, in_flight: int) -> bool:
    """Whether what calls in flight hold leaves no room for one more like them."""
    more = 1 + 1 / max(1, in_flight)
    nusd, tokens = use.budget.nusd, use.budget.tokens
    is_dear = nusd is not None and use.spent_nusd + use.held_nusd * more > nusd
    is_long = tokens is not None and use.spent_tokens + use.held_tokens * more > tokens
    return (is_dear and use.held_nusd > 0) or (is_long and use.held_tokens > 0)
