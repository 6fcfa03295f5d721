"""Redis and its twin in memory decide alike, call by call, on one clock."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, replace

import pytest

from batchq.endpoint import Limits, ProviderSpec, RateLimit
from batchq.limiter import MemoryLimiter, RedisLimiter, desk
from batchq.limiter import redis as redis_limiter
from batchq.limiter.keys import provider_key
from batchq.ports import Feedback, Quota, Reservation, Verdict

SCENES = {
    "rpm": Limits((RateLimit("rpm", "requests", 300, 60),)),
    "rpm and tpm": Limits(
        (RateLimit("rpm", "requests", 600, 60), RateLimit("tpm", "tokens", 20_000, 60))
    ),
    "in flight": Limits((), 4),
    "all": Limits(
        (
            RateLimit("100 requests per 10s", "requests", 100, 10),
            RateLimit("tpm", "tokens", 9e4, 60),
        ),
        6,
    ),
    "adaptive": Limits(adaptive=True),
    "adaptive below a bound": Limits((RateLimit("rpm", "requests", 400, 60),), 8, adaptive=True),
    "one a second": Limits((RateLimit("rpm", "requests", 60, 60),)),
    "none": Limits(),
}


@dataclass
class Clock:
    """Seconds, for both."""

    client: object
    now: float = 5000.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now = round(self.now + seconds, 6)
        micros = round(self.now * 1e6) + 10**15 - round(5000.0 * 1e6)
        self.client.set("clock:s", micros // 10**6)
        self.client.set("clock:us", micros % 10**6)


@pytest.fixture
def clock(redis_client, monkeypatch) -> Clock:
    """A clock that the scripts read in place of the server's."""
    real = redis_limiter.script
    ours = "{redis.call('GET', 'clock:s'), redis.call('GET', 'clock:us')}"
    for module in (redis_limiter, desk):
        monkeypatch.setattr(
            module, "script", lambda name: real(name).replace("redis.call('TIME')", ours)
        )
    made = Clock(redis_client)
    made.move(0)
    return made


def feedback(rng: random.Random) -> Feedback:
    chance = rng.random()
    if chance < 0.05:
        limit = rng.choice(["", "requests", "tokens", "concurrency"])
        return Feedback(Verdict.REFUSED, limit, rng.choice([None, 0.5, 2.0]))
    if chance < 0.12:
        return Feedback(rng.choice([Verdict.DOWN, Verdict.OVERLOADED]))
    if chance < 0.2:
        told = rng.choice([50.0, 250.0, 5000.0])
        left = rng.choice([0.0, 3.0, told / 2])
        return Feedback(quotas=(Quota("requests", told, left, rng.choice([0.0, 5.0, 30.0])),))
    return Feedback(rng.choice([Verdict.ANSWERED] * 9 + [Verdict.UNSENT]))


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("seed", range(3))
def test_both_decide_alike(redis_client, clock, scene, seed) -> None:
    rng = random.Random(f"{scene}{seed}")
    on_redis, in_memory = RedisLimiter(redis_client), MemoryLimiter(clock=clock)
    name, held, waiting = uuid.uuid4().hex, [], []
    one = ProviderSpec(name, "openai", "http://x", "m", limits=SCENES[scene])
    specs = {"a": one, "b": one, "c": replace(one, priority=3.0)}

    def asked(lease: str, tokens: int, patience_s: float = 3.0) -> Reservation:
        return Reservation(specs[lease[0]], lease, tokens, 30.0, patience_s)

    for number in range(250):
        if rng.random() < 0.02:
            limit = rng.choice(["rpm", "tpm", "concurrency"])
            moved = {limit: rng.choice([None, 5.0, 500.0, 50_000.0])}
            for each in (on_redis, in_memory):
                each.set_limits(provider_key(one), **moved)
        clock.move(rng.choice([0.0, 0.001, 0.01, 0.05, 0.2, 1.0, 3.0]))
        if held and rng.random() < 0.4:
            lease, reserved = held.pop(rng.randrange(len(held)))
            told, used = feedback(rng), rng.randrange(0, 2 * reserved + 1)
            ended = asked(lease, reserved)
            first, second = (each.settle(ended, used, told) for each in (on_redis, in_memory))
            assert first == pytest.approx(second, abs=1e-3), (number, told)
            continue
        if waiting and rng.random() < 0.6:
            lease, tokens = waiting.pop(rng.randrange(len(waiting)))
        else:
            lease, tokens = f"{rng.choice('abc')}/{number}", rng.choice([10, 100, 400])
        patience_s = rng.choice([0.5, 3.0, float("inf")])
        grants = [each.reserve(asked(lease, tokens, patience_s)) for each in (on_redis, in_memory)]
        assert grants[0].blocked_by == grants[1].blocked_by, (number, grants)
        assert grants[0].is_probe == grants[1].is_probe
        assert grants[0].wait_s == pytest.approx(grants[1].wait_s, rel=1e-3, abs=1e-3), number
        (held if grants[0].is_granted else waiting).append((lease, tokens))


def test_a_clock_that_is_set_back_costs_neither_an_hour_nor_a_grant_too_many(
    redis_client, clock
) -> None:
    limiter = RedisLimiter(redis_client)
    spec = ProviderSpec(uuid.uuid4().hex, "openai", "http://x", "m", limits=SCENES["one a second"])
    limiter.reserve(Reservation(spec, "a/0", 100, 30.0))
    limiter.reserve(Reservation(spec, "a/1", 100, 30.0))
    limiter.pause(spec, 5.0)

    clock.move(-3600)
    waits = limiter.reserve(Reservation(spec, "a/1", 100, 30.0))
    clock.move(waits.wait_s)
    granted = limiter.reserve(Reservation(spec, "a/1", 100, 30.0))
    after = limiter.reserve(Reservation(spec, "a/2", 100, 30.0))

    assert 0.9 < waits.wait_s < 1.1
    assert granted.is_granted
    assert 0.9 < after.wait_s < 1.1
