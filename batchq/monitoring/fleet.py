"""Reads how a whole fleet stands: runs, queues, workers, providers, for metrics and `doctor`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from batchq.engine.tally import Key
from batchq.ledger import summary_of
from batchq.limiter import desk
from batchq.ports import BudgetUse
from batchq.services import Services

MOST_RUNS = 200
"""So many runs in flight are looked into, the newest; the others are counted only."""


@dataclass(frozen=True, slots=True)
class QueueUse:
    """One queue: messages that wait in it, its workers, their slots, and how many of them work."""

    waiting: int = 0
    workers: int = 0
    slots: int = 0
    active: int = 0

    @property
    def load(self) -> int:
        """How many slots would be of use now."""
        return self.waiting + self.active


@dataclass(frozen=True, slots=True)
class PipelineUse:
    """The runs of one pipeline that are in flight, together.

    `oldest_s` is how long ago its oldest open batch was sent, `budget` the largest share that one
    of its runs has spent; None where there is none.
    """

    runs: Mapping[str, int]
    ok: int = 0
    failed: int = 0
    left: int = 0
    open_batches: int = 0
    oldest_s: float | None = None
    budget: float | None = None


@dataclass(frozen=True, slots=True)
class Fleet:
    """All of it at one moment. `alive` is what each live process says about itself."""

    alive: Mapping[str, Mapping[str, Any]]
    queues: Mapping[str, QueueUse]
    pipelines: Mapping[str, PipelineUse]
    providers: tuple[desk.ProviderUse, ...]
    counted: Mapping[Key, float]
    took_s: float = 0.0

    def of_role(self, role: str) -> list[Mapping[str, Any]]:
        """What the live processes of a role say about themselves."""
        return [about for about in self.alive.values() if about.get("role") == role]


def read_fleet(services: Services, queues: Iterable[str]) -> Fleet:
    """Reads it all from Redis; raises QueueError if that is away.

    Shown are these queues, and those that a live worker takes from.
    """
    began = time.perf_counter()
    alive = services.ledger.alive()
    return Fleet(
        alive=alive,
        queues=read_queues(services, queues, alive),
        pipelines=_pipelines(services),
        providers=tuple(desk.usage(services.redis)),
        counted=services.tallies.read(),
        took_s=time.perf_counter() - began,
    )


def read_queues(
    services: Services, queues: Iterable[str], alive: Mapping[str, Mapping[str, Any]]
) -> dict[str, QueueUse]:
    """How these queues stand, and those that a live worker takes from."""
    workers = [about for about in alive.values() if about.get("role") == "worker"]
    taken = {name for about in workers for name in str(about["queues"]).split(",")}
    found = {}
    for queue in sorted({*queues, *taken} - {""}):
        mine = [about for about in workers if queue in str(about["queues"]).split(",")]
        found[queue.removeprefix("batchq.")] = QueueUse(
            waiting=services.ledger.queue_length(queue),
            workers=len(mine),
            slots=sum(int(about["slots"]) for about in mine),
            active=sum(int(about.get("active", {}).get(queue, 0)) for about in mine),
        )
    return found


def _pipelines(services: Services) -> dict[str, PipelineUse]:
    ledger = services.ledger
    found: dict[str, list[tuple[str, PipelineUse]]] = {}
    for run in ledger.runs()[-MOST_RUNS:]:
        about = ledger.about(run)
        if about:
            one = _of_run(run, about, services)
            found.setdefault(about["pipeline"], []).append((about["state"], one))
    return {name: _together(uses) for name, uses in found.items()}


def _of_run(run: str, about: Mapping[str, str], services: Services) -> PipelineUse:
    ledger, now = services.ledger, time.time()
    counters = [
        ledger.counters(run, number) for number, _ in enumerate(about["steps"].split("\n"), 1)
    ]
    summaries = [summary_of(one) for one in counters]
    opened = ledger.open_batches(run).values()
    ages = [now - one.sent_at for one in opened]
    use = services.budgets.use(run) if about.get("budget") else None
    return PipelineUse(
        runs={},
        ok=sum(one.ok for one in summaries),
        failed=sum(one.failed for one in summaries),
        left=sum(
            max(0, one.get("total", 0) - summary.total)
            for one, summary in zip(counters, summaries, strict=True)
        ),
        open_batches=len(ages),
        oldest_s=max(ages, default=None),
        budget=_spent_share(use) if use else None,
    )


def _spent_share(use: BudgetUse) -> float:
    budget = use.budget
    shares = [(use.spent_nusd, budget.nusd), (use.spent_tokens, budget.tokens)]
    return max((spent / most for spent, most in shares if most), default=0.0)


def _together(uses: list[tuple[str, PipelineUse]]) -> PipelineUse:
    each = [use for _, use in uses]
    ages = [use.oldest_s for use in each if use.oldest_s is not None]
    shares = [use.budget for use in each if use.budget is not None]
    return PipelineUse(
        runs=Counter(state for state, _ in uses),
        ok=sum(use.ok for use in each),
        failed=sum(use.failed for use in each),
        left=sum(use.left for use in each),
        open_batches=sum(use.open_batches for use in each),
        oldest_s=max(ages, default=None),
        budget=max(shares, default=None),
    )
