"""Items that wait elsewhere than in a slot: none of their provider's rate is lost for it."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from batchq.endpoint import Limits, ProviderSpec, RateLimit
from batchq.limiter import MemoryLimiter
from batchq.limiter.keys import provider_key
from batchq.ports import Reservation

PATIENCE_S = 3.0
LATENCY_S = 0.2


@dataclass
class Pool:
    """Slots that any item may use: one that is due again, else one that never had its turn.

    A slot with nothing to do looks again after a fifth of a second, as an item comes late that
    goes through a queue.
    """

    limits: Limits
    slots: int
    items: dict[str, int]  # run -> how many it has
    now: float = 1000.0
    calls: list[tuple[float, str]] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)
    given_back: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limiter = MemoryLimiter(clock=lambda: self.now)
        self.rng = random.Random(3)
        self.order = itertools.count()
        per_run = [[f"{run}/{n}" for n in range(count)] for run, count in self.items.items()]
        mixed = itertools.chain.from_iterable(itertools.zip_longest(*per_run))
        self.fresh = [one for one in mixed if one][::-1]
        self.later: list[tuple[float, str]] = []
        self.free = [(self.now, next(self.order), "") for _ in range(self.slots)]

    def spec(self) -> ProviderSpec:
        return ProviderSpec("p", "openai", "http://x", "m", limits=self.limits)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.free[0][0] < end:
            self.now, _, item = heapq.heappop(self.free)
            item, again_s = self._step(item)
            heapq.heappush(self.free, (self.now + again_s, next(self.order), item))
        self.now = end

    def _step(self, item: str) -> tuple[str, float]:
        """What a slot does next: the item it goes on with, and when."""
        if not item and not (item := self._take()):
            return "", 0.2
        self.asked.append(self.now)
        asked = Reservation(self.spec(), item, 100, 600, PATIENCE_S)
        grant = self.limiter.reserve(asked)
        if grant.is_granted:
            self.calls.append((self.now, item.partition("/")[0]))
            self.limiter.settle(asked, 100)
            return "", LATENCY_S
        if grant.wait_s > PATIENCE_S:
            self.given_back.append(self.now)
            heapq.heappush(self.later, (self.now + grant.wait_s, item))
            return "", 0.001
        return item, min(grant.wait_s, 2.0) + 0.01 * self.rng.random()

    def _take(self) -> str:
        if self.later and self.later[0][0] <= self.now:
            # It comes back in another process, which is another lease.
            return f"{heapq.heappop(self.later)[1]}+"
        return self.fresh.pop() if self.fresh else ""

    def calls_in(self, begin_s: float, end_s: float) -> Counter[str]:
        return Counter(run for at, run in self.calls if begin_s <= at - 1000.0 < end_s)


def rpm(amount: float) -> Limits:
    return Limits((RateLimit("rpm", "requests", amount, 60),))


@pytest.mark.parametrize("slots", [4, 64, 200])
def test_more_waiters_than_patience_has_places_for_lose_nothing_of_the_rate(slots: int) -> None:
    pool = Pool(rpm(1200), slots, {"a": 1500})

    pool.run(40)

    assert 0.98 * 600 <= pool.calls_in(5, 35).total() <= 1.01 * 600


def test_ten_thousand_waiting_items_come_back_no_more_often_than_ten_times_a_second() -> None:
    pool = Pool(rpm(60), 16, {"a": 10_000})
    while pool.fresh:  # each item has to be asked for once
        pool.run(1)
    given_back, asked, swept = len(pool.given_back), len(pool.asked), pool.now

    pool.run(120)

    seconds = pool.now - swept
    assert len(pool.given_back) - given_back <= 10.5 * seconds
    assert len(pool.asked) - asked <= 20 * seconds
    assert len([at for at, _ in pool.calls if at > swept]) >= 0.95 * seconds


def test_runs_share_alike_although_one_has_many_more_items_away() -> None:
    pool = Pool(rpm(1200), 40, {"large": 1500, "small": 500})

    pool.run(40)

    calls = pool.calls_in(5, 35)
    assert 0.45 <= calls["small"] / calls.total() <= 0.55


def test_a_limit_that_is_raised_is_seen_by_those_who_are_away() -> None:
    pool = Pool(rpm(30), 16, {"a": 100})
    pool.run(20)
    pool.limiter.set_limits(provider_key(pool.spec()), rpm=1200)

    pool.run(25)

    assert len(pool.calls) == 100
