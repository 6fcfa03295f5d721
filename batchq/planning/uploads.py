"""Plans what a step takes that goes in uploads, beside what it would take online."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from batchq.endpoint import ProviderSpec
from batchq.manifest.models import Step
from batchq.manifest.modes import deadline_of
from batchq.outcome import Usage
from batchq.plan import StepSpec, UploadTerms
from batchq.planning.estimate import Estimate
from batchq.planning.pricing import cost, upload_prices
from batchq.planning.specs import Planning, levels_of
from batchq.text.amounts import duration

WINDOW_S = 24 * 3600.0
"""The longest that a provider takes for an upload: what is not answered then has expired."""
BOUND = "uploads"
SURE = 1.25
"""How much longer than estimated the online calls may take that a deadline leaves room for."""
CANCEL_S = 600.0
"""How long a provider may take to cancel an upload; what it has not answered is known after it."""
CANCEL_SHARE = 0.1
"""Of a short time until a deadline no more than this is kept free for that."""


def plan_uploads(
    planning: Planning, step: Step, spec: StepSpec, online: Estimate
) -> tuple[Estimate, UploadTerms | None]:
    """What a step takes by its mode, and what each way would; `online` is the estimate for that.

    With `mode: auto` the price is that of uploads: what goes online at last costs more, at most
    what all of it would online.
    """
    if spec.mode == "online":
        return online, None
    provider = spec.stages[0].provider
    assert provider is not None  # checks: only prompts go in uploads
    prices = upload_prices(provider.prices)
    deadline = deadline_of(levels_of(planning.manifest, step))
    used = Usage(online.calls, online.input_tokens, online.output_tokens)
    usd = None if prices is None else cost(used, prices).cost_usd
    terms = UploadTerms(
        deadline_s=deadline if isinstance(deadline, float) else None,
        deadline_at=datetime.fromisoformat(deadline).timestamp()
        if isinstance(deadline, str)
        else None,
        cost_usd=usd,
        online_cost_usd=online.cost_usd,
        online_s=online.duration_s,
    )
    planning.warnings += _warnings(spec, provider, terms)
    longest_s = WINDOW_S + (online.duration_s if spec.mode == "auto" else 0.0)
    within_s = min(longest_s, terms.deadline_s or longest_s)
    return replace(online, cost_usd=usd, duration_s=within_s, bound_by=BOUND), terms


def _warnings(spec: StepSpec, provider: ProviderSpec, terms: UploadTerms) -> Iterator[str]:
    """What a plan already says: a price that nobody knows, a deadline that leaves no time."""
    if terms.cost_usd is None and terms.online_cost_usd is not None:
        yield (
            f"no price of {provider.kind}/{provider.model} in uploads is known, so their cost is "
            "not counted: `prices: {.., batch: 0.5}` says which share of its prices they cost"
        )
    if terms.deadline_s is not None and online_by(0.0, terms.deadline_s, terms.online_s) <= 0:
        yield (
            f"step {spec.name}: its deadline leaves no time for uploads, as its calls are "
            f"estimated to take {duration(terms.online_s)} online: all of it goes online"
        )


def online_by(began_at: float, deadline_at: float, rest_s: float) -> float:
    """When what is left has to go online, to be done by a deadline.

    `rest_s` is how long its calls are estimated to take. Before them, uploads are cancelled: as
    long as a line may still be answered, nobody may ask it a second time.
    """
    slack_s = min(CANCEL_S, CANCEL_SHARE * (deadline_at - began_at))
    return deadline_at - SURE * rest_s - slack_s
