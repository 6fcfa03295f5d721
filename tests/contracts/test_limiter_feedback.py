"""What answers teach every limiter, shown on Redis and on its twin in memory."""

from __future__ import annotations

import uuid

import pytest

from batchq.endpoint import Limits, ProviderSpec, RateLimit
from batchq.errors import UsageError
from batchq.limiter import MemoryLimiter, RedisLimiter
from batchq.limiter.breaker import OPEN_AFTER, SLOW_AFTER, SLOW_CALLS
from batchq.limiter.keys import provider_key
from batchq.ports import Feedback, Quota, Reservation, Verdict

DOWN = Feedback(Verdict.DOWN)


@pytest.fixture(params=["redis", "memory"])
def limiter(request):
    if request.param == "memory":
        return MemoryLimiter()
    return RedisLimiter(request.getfixturevalue("redis_client"))


def provider(amount: float = 6000, concurrency: int | None = None) -> ProviderSpec:
    limits = Limits((RateLimit("rpm", "requests", amount, 60),), concurrency)
    return ProviderSpec(uuid.uuid4().hex, "openai", "http://x", "m", limits=limits)


def call(limiter, spec, lease, feedback) -> float:
    asked = Reservation(spec, lease, 10, 60)
    assert limiter.reserve(asked).is_granted
    return limiter.settle(asked, 10, feedback)


def test_calls_that_are_refused_at_once_stop_everybody_once(limiter) -> None:
    spec = provider()
    leases = [f"r/{n}" for n in range(8)]
    assert all(limiter.reserve(Reservation(spec, lease, 10, 60)).is_granted for lease in leases)

    for lease in leases:
        limiter.settle(
            Reservation(spec, lease, 10, 60), 0, Feedback(Verdict.REFUSED, retry_after_s=5.0)
        )

    grant = limiter.reserve(Reservation(spec, "r/next", 10, 60))
    assert grant.blocked_by == "pause"
    assert 4 < grant.wait_s <= 5.01


def test_many_refusals_of_one_moment_lower_a_limit_once(redis_client) -> None:
    limiter, spec = RedisLimiter(redis_client), provider()
    for number in range(20):
        limiter.reserve(Reservation(spec, f"r/{number}", 10, 60))

    for number in range(20):
        limiter.settle(Reservation(spec, f"r/{number}", 10, 60), 0, Feedback(Verdict.REFUSED))

    [use] = [one for one in limiter.usage() if one.name == spec.name]
    lowered = next(one for one in use.limits if one.name == "rpm")
    assert lowered.source == "found"
    learned = redis_client.hget(f"{{batchq:limit:{provider_key(spec)}}}:state", "rpm:learned")
    assert learned.rstrip(b"]").endswith(b",0")  # no second step back followed the first


def test_an_overloaded_provider_is_left_alone_for_a_moment(limiter) -> None:
    spec = provider()

    call(limiter, spec, "r/1", Feedback(Verdict.OVERLOADED))

    assert limiter.reserve(Reservation(spec, "r/2", 10, 60)).blocked_by == "pause"


def test_a_lower_limit_that_the_provider_tells_is_used(limiter) -> None:
    spec = provider(6000)

    call(limiter, spec, "r/1", Feedback(quotas=(Quota("requests", 60, 50, 10.0),)))

    limiter.reserve(Reservation(spec, "r/2", 10, 60))
    assert limiter.reserve(Reservation(spec, "r/3", 10, 60)).wait_s > 0.5


def test_a_provider_that_says_nothing_is_left_holds_everybody(limiter) -> None:
    spec = provider(600)

    call(limiter, spec, "r/1", Feedback(quotas=(Quota("requests", 600, 0, 59.0),)))

    assert limiter.reserve(Reservation(spec, "r/2", 10, 60)).blocked_by == "rpm"


def test_failures_in_a_row_slow_down_first_and_then_stop_all_calls(limiter) -> None:
    spec = provider()
    for number in range(SLOW_AFTER):
        call(limiter, spec, f"r/{number}", DOWN)
    few = [limiter.reserve(Reservation(spec, f"r/few{n}", 10, 60)) for n in range(SLOW_CALLS + 1)]

    for number in range(SLOW_CALLS):
        limiter.settle(Reservation(spec, f"r/few{number}", 10, 60), 0, DOWN)
    for number in range(SLOW_AFTER + SLOW_CALLS, OPEN_AFTER):
        call(limiter, spec, f"r/{number}", DOWN)

    assert few[-1].blocked_by == "concurrency"
    assert limiter.reserve(Reservation(spec, "r/next", 10, 60)).blocked_by == "outage"


def outage(limiter, spec) -> None:
    for number in range(OPEN_AFTER):
        call(limiter, spec, f"r/{number}", DOWN)


def wait_for_probe(limiter, spec, wait_for, lease="r/probe"):
    grants = []
    wait_for(
        lambda: (
            grants.append(limiter.reserve(Reservation(spec, lease, 10, 60)))
            or grants[-1].is_granted
        ),
        "a probe is let through",
        5,
    )
    return grants[-1]


def test_one_call_tries_whether_an_outage_is_over_and_ends_it(limiter, wait_for) -> None:
    spec = provider()
    outage(limiter, spec)

    probe = wait_for_probe(limiter, spec, wait_for)
    others = [
        limiter.reserve(Reservation(spec, f"r/other{n}", 10, 60)).blocked_by for n in range(3)
    ]
    outage_s = limiter.settle(Reservation(spec, "r/probe", 10, 60), 10, Feedback())

    assert probe.is_probe
    assert others == ["outage"] * 3
    assert outage_s == 0
    assert limiter.reserve(Reservation(spec, "r/after", 10, 60)).is_granted


def test_a_probe_that_fails_tells_for_how_long_nobody_had_an_answer(limiter, wait_for) -> None:
    spec = provider()
    outage(limiter, spec)
    wait_for_probe(limiter, spec, wait_for)

    outage_s = limiter.settle(Reservation(spec, "r/probe", 10, 60), 0, DOWN)

    assert outage_s > 0.5
    assert limiter.reserve(Reservation(spec, "r/next", 10, 60)).wait_s > 1


def test_a_refusal_or_a_bad_request_shows_that_the_provider_is_there(limiter) -> None:
    spec = provider()
    for number in range(OPEN_AFTER - 1):
        call(limiter, spec, f"r/{number}", DOWN)

    call(limiter, spec, "r/there", Feedback())
    call(limiter, spec, "r/down", DOWN)

    assert limiter.reserve(Reservation(spec, "r/next", 10, 60)).is_granted


def test_a_lease_that_was_slept_over_corrects_nothing(limiter, wait_for) -> None:
    spec = provider(concurrency=1)
    limiter.reserve(Reservation(spec, "r/slow", 10, 0.05))
    wait_for(
        lambda: limiter.reserve(Reservation(spec, "r/next", 10, 60)).is_granted, "the lease ends", 5
    )

    limiter.settle(
        Reservation(spec, "r/slow", 10, 0.05), 0, Feedback(Verdict.REFUSED, retry_after_s=60)
    )

    limiter.settle(Reservation(spec, "r/next", 10, 60), 10)
    assert limiter.reserve(Reservation(spec, "r/last", 10, 60)).is_granted


def test_a_limit_set_by_hand_holds_at_once_until_it_is_unset(limiter) -> None:
    spec = provider(6000)
    call(limiter, spec, "r/0", Feedback())
    limiter.set_limits(provider_key(spec), rpm=60)
    slow = [limiter.reserve(Reservation(spec, f"r/{n}", 10, 60)) for n in range(1, 4)]

    limiter.set_limits(provider_key(spec), rpm=None)

    assert not slow[-1].is_granted
    assert limiter.reserve(Reservation(spec, "r/9", 10, 60)).wait_s < 0.2


@pytest.mark.parametrize("amount", [0, -5, 1e12, float("nan")])
def test_a_limit_that_makes_no_sense_is_not_set(redis_client, amount) -> None:
    with pytest.raises(UsageError, match="rpm must be a number from 1"):
        RedisLimiter(redis_client).set_limits("p-1", rpm=amount)


def test_what_is_used_is_told_with_who_waits(redis_client) -> None:
    limiter, spec = RedisLimiter(redis_client), provider(60, concurrency=5)
    call(limiter, spec, "a/0", Feedback())
    limiter.reserve(Reservation(spec, "a/1", 10, 60))
    limiter.reserve(Reservation(spec, "b/2", 10, 60))

    [use] = [one for one in limiter.usage() if one.name == spec.name]

    assert dict(use.waiting) == {"a": 1, "b": 1}
    assert (use.granted, use.refused, use.in_flight, use.breaker) == (1, 0, 0, "closed")
    assert use.limit("rpm") == 60
    assert use.requests_per_minute > 0


def test_an_enormous_limit_is_no_limit_and_breaks_nothing(limiter) -> None:
    spec = provider(1e12)

    assert all(limiter.reserve(Reservation(spec, f"r/{n}", 10, 60)).is_granted for n in range(50))
