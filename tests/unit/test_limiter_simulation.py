"""What the limiter comes to against servers with limits of their own, on a clock of ours."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from batchq.endpoint import Limits, ProviderSpec, RateLimit
from batchq.limiter import MemoryLimiter
from batchq.ports import Feedback, Reservation, Verdict
from batchq.simulator.limits import Limits as ServerLimits
from batchq.simulator.options import SimulatorOptions


@dataclass
class World:
    """Runs with slots, one limiter and one server. `moves` are (time, change) of the server."""

    options: SimulatorOptions
    limits: Limits
    slots: dict[str, int]
    latency_s: float = 0.2
    weights: dict[str, float] = field(default_factory=dict)
    tells_limit: bool = False
    tells_when: bool = False
    is_down: Callable[[float], bool] = lambda _: False
    tokens: Callable[[random.Random], int] = lambda _: 100
    now: float = 1000.0
    accepted: list[tuple[float, str, int]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    begins: dict[str, float] = field(default_factory=dict)
    asked: int = 0

    def __post_init__(self) -> None:
        self.limiter = MemoryLimiter(clock=lambda: self.now)
        self.server = ServerLimits(self.options, lambda: self.now)
        self.order = itertools.count()
        self.rng = random.Random(5)
        self.start = self.now
        self.events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, moment: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (moment, next(self.order), what))

    def change(self, after_s: float, **options: object) -> None:
        changed = self.options.model_copy(update=options)
        self.at(self.start + after_s, lambda: self.server.configure(changed))

    def run(self, seconds: float) -> None:
        for run, slots in self.slots.items():
            for slot in range(slots):
                begin = self.start + self.begins.get(run, 0.0) + slot * 0.01
                self.at(begin, lambda run=run, slot=slot: self.item(run, slot, 0))
        while self.events and self.events[0][0] < self.start + seconds:
            self.now, _, what = heapq.heappop(self.events)
            what()
        self.now = self.start + seconds

    def spec(self, run: str) -> ProviderSpec:
        weight = self.weights.get(run, 1.0)
        return ProviderSpec("p", "openai", "http://x", "m", limits=self.limits, priority=weight)

    def item(self, run: str, slot: int, number: int) -> None:
        tokens = self.tokens(self.rng)
        self.ask(run, slot, number, tokens)

    def ask(self, run: str, slot: int, number: int, tokens: int) -> None:
        self.asked += 1
        lease = f"{run}/{slot}/{number}"
        grant = self.limiter.reserve(Reservation(self.spec(run), lease, tokens, 600))
        if not grant.is_granted:
            late_s = self.rng.uniform(0, 0.01)
            wake_at = self.now + min(grant.wait_s, 2.0) + late_s
            self.at(wake_at, lambda: self.ask(run, slot, number, tokens))
            return
        self.call(run, slot, number, tokens, lease)

    def call(self, run: str, slot: int, number: int, tokens: int, lease: str) -> None:
        def settle(feedback: Feedback, used: int) -> None:
            self.limiter.settle(Reservation(self.spec(run), lease, tokens, 600), used, feedback)
            again_s = 2.0 if feedback.verdict is not Verdict.ANSWERED else 0.005
            self.at(self.now + again_s, lambda: self.item(run, slot, number + 1))

        if self.is_down(self.now - self.start):
            self.failed.append(self.now - self.start)
            self.at(self.now + 0.01, lambda: settle(Feedback(Verdict.DOWN), 0))
            return
        admission = self.server.admit(tokens)
        if not admission.is_admitted:
            self.refused.append(self.now - self.start)
            kind = {"requests": "requests", "tokens": "tokens", "concurrency": "concurrency"}
            limit = kind[admission.blocked_by or "requests"] if self.tells_limit else ""
            after_s = admission.retry_after_s if self.tells_when else None
            refusal = Feedback(Verdict.REFUSED, limit, after_s)  # type: ignore[arg-type]
            self.at(self.now + 0.02, lambda: settle(refusal, 0))
            return
        self.accepted.append((self.now - self.start, run, tokens))

        def end() -> None:
            self.server.release()
            settle(Feedback(), tokens)

        self.at(self.now + self.latency_s * self.rng.uniform(0.7, 1.3), end)

    def calls_per_minute(self, begin: float, end: float) -> float:
        return sum(begin <= at < end for at, _, _ in self.accepted) / (end - begin) * 60


def server(**options: object) -> SimulatorOptions:
    return SimulatorOptions(**options)  # type: ignore[arg-type]


def rpm(amount: float) -> RateLimit:
    return RateLimit("rpm", "requests", amount, 60)


@pytest.mark.parametrize(
    ("hidden", "burst_s", "tells_when", "seconds", "most_refused"),
    [
        (120, 60, False, 420, 0.015),  # to find out costs a dozen calls, out of only 900
        (600, 1, False, 240, 0.01),
        (1200, 60, False, 240, 0.01),
        (1200, 1, False, 60, 0.01),
        (1200, 1, True, 60, 0.01),
    ],
)
def test_an_unknown_limit_is_found_and_nearly_used_up(
    hidden, burst_s, tells_when, seconds, most_refused
) -> None:
    options = server(rpm=float(hidden), burst_s=float(burst_s))
    here = World(options, Limits(adaptive=True), {"r": 40}, tells_when=tells_when)

    here.run(seconds)

    assert here.calls_per_minute(seconds / 2, seconds) >= 0.95 * hidden
    assert len(here.refused) < most_refused * (len(here.accepted) + len(here.refused))


def test_a_limit_of_calls_in_flight_is_found_too() -> None:
    here = World(server(concurrency=20), Limits(adaptive=True), {"r": 40}, tells_limit=True)

    here.run(90)

    most = 20 / here.latency_s * 60
    assert here.calls_per_minute(50, 90) >= 0.85 * most
    assert len(here.refused) < 0.02 * len(here.accepted)


@pytest.mark.parametrize("burst_s", [1.0, 10.0])
@pytest.mark.parametrize("limit", [600.0, 1200.0])
def test_a_limit_that_is_halved_without_notice_is_followed(limit, burst_s) -> None:
    limits = Limits((rpm(limit),))
    here = World(server(rpm=limit, burst_s=burst_s), limits, {"r": 40})
    here.change(60, rpm=limit / 2)

    here.run(180)

    first = next(at for at in here.refused if at > 60)
    assert sum(60 < at < first + 20 for at in here.refused) <= (6 if burst_s == 1 else 8)
    assert here.calls_per_minute(first + 20, first + 50) >= 0.95 * limit / 2
    assert len([at for at in here.refused if at < 60]) == 0


def test_a_limit_that_rises_again_is_grown_back_to() -> None:
    here = World(server(rpm=1200, burst_s=5.0), Limits((rpm(1200),)), {"r": 40})
    here.change(30, rpm=600, burst_s=5.0)
    here.change(90, rpm=1200, burst_s=5.0)

    here.run(300)

    assert here.calls_per_minute(240, 300) >= 0.97 * 1200


def test_two_runs_share_a_rate_whatever_their_numbers_of_waiters() -> None:
    here = World(server(), Limits((rpm(1200),)), {"many": 100, "few": 12})

    here.run(60)

    shares = Counter(run for _, run, _ in here.accepted)
    assert 0.45 <= shares["few"] / shares.total() <= 0.55
    assert here.calls_per_minute(1, 60) >= 0.98 * 1200


def test_two_runs_share_calls_in_flight_whatever_their_numbers_of_waiters() -> None:
    here = World(server(), Limits(concurrency=10), {"many": 50, "few": 12})

    here.run(20)

    shares = Counter(run for _, run, _ in here.accepted)
    assert 0.45 <= shares["few"] / shares.total() <= 0.55
    assert here.calls_per_minute(1, 20) >= 0.9 * 10 / here.latency_s * 60


def test_a_run_of_twice_the_priority_gets_twice_as_much() -> None:
    here = World(server(), Limits((rpm(1200),)), {"a": 60, "b": 60}, weights={"a": 2.0})

    here.run(60)

    shares = Counter(run for _, run, _ in here.accepted)
    assert shares["a"] / shares["b"] == pytest.approx(2, rel=0.1)


def test_a_run_with_little_to_do_holds_nobody_back() -> None:
    here = World(server(), Limits((rpm(1200),)), {"busy": 60, "idle": 1}, latency_s=2.0)

    here.run(60)

    shares = Counter(run for _, run, _ in here.accepted)
    assert shares["idle"] >= 20
    assert here.calls_per_minute(1, 60) >= 0.98 * 1200


def test_a_run_that_comes_later_gets_its_half_at_once_and_no_more() -> None:
    here = World(server(), Limits((rpm(1200),)), {"old": 60, "new": 60}, begins={"new": 30.0})

    here.run(60)

    shares = Counter(run for at, run, _ in here.accepted if at > 35)
    assert 0.45 <= shares["new"] / shares.total() <= 0.55


def test_a_provider_that_is_away_is_tried_now_and_then_and_used_again_at_once() -> None:
    here = World(server(), Limits((rpm(1200),)), {"r": 40}, is_down=lambda at: 30 < at < 90)

    here.run(180)

    assert len(here.failed) <= 30
    assert min(at for at, _, _ in here.accepted if at > 90) < 125
    assert here.calls_per_minute(130, 180) >= 0.97 * 1200
