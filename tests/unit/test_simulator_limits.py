from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.simulator.limits import Limits
from batchq.simulator.options import SimulatorOptions


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def limits_of(clock: Clock, **options: object) -> Limits:
    return Limits(SimulatorOptions.model_validate(options), clock)


def test_a_burst_is_admitted_and_what_follows_is_told_when_to_come_back() -> None:
    clock = Clock()
    limits = limits_of(clock, rpm=60, burst_s=3)

    first = [limits.admit(1).is_admitted for _ in range(4)]
    refused = limits.admit(1)
    clock.now += 1.0

    assert first == [True, True, True, False]
    assert (refused.blocked_by, refused.retry_after_s) == ("requests", pytest.approx(1.0))
    assert limits.admit(1).is_admitted


def test_a_refused_call_takes_nothing_of_the_other_limit() -> None:
    limits = limits_of(Clock(), rpm=60, tpm=100)
    limits.admit(90)
    before = limits.states()

    refused = limits.admit(20)

    assert refused.blocked_by == "tokens"
    assert limits.states() == before
    assert limits.in_flight == 1


def test_a_call_that_exceeds_a_whole_limit_is_told_that_no_wait_helps() -> None:
    admission = limits_of(Clock(), tpm=100).admit(101)

    assert (admission.blocked_by, admission.retry_after_s) == ("tokens", None)


def test_calls_in_flight_are_capped_until_one_ends() -> None:
    limits = limits_of(Clock(), concurrency=2)
    limits.admit(1)
    limits.admit(1)

    refused = limits.admit(1)
    limits.release()

    assert refused.blocked_by == "concurrency"
    assert limits.admit(1).is_admitted
    assert limits.peak_in_flight == 2


def test_a_limit_that_is_lowered_while_calls_go_on_keeps_what_was_used() -> None:
    clock = Clock()
    limits = limits_of(clock, rpm=60)
    for _ in range(58):
        limits.admit(1)

    limits.configure(SimulatorOptions(rpm=30))

    assert [limits.admit(1).is_admitted for _ in range(3)] == [True, True, False]
    assert limits.admit(1).retry_after_s == pytest.approx(2.0)


def test_headers_tell_limit_rest_and_time_until_all_is_free() -> None:
    limits = limits_of(Clock(), rpm=60)
    limits.admit(1)
    limits.admit(1)

    state = limits.states()["requests"]

    assert (state.limit, state.remaining, state.reset_s) == (60, 58, pytest.approx(2.0))


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 60)), max_size=80))
def test_never_more_is_admitted_than_the_burst_and_the_time_allow(
    calls: list[tuple[float, int]],
) -> None:
    clock = Clock()
    limits = limits_of(clock, rpm=30, tpm=600, burst_s=10)
    requests = tokens = 0

    for pause_s, wanted in calls:
        clock.now += pause_s
        if limits.admit(wanted).is_admitted:
            requests, tokens = requests + 1, tokens + wanted

    elapsed = clock.now - 100.0
    assert requests <= 5 + elapsed * 0.5 + 1e-6
    assert tokens <= 100 + elapsed * 10 + 1e-6


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 60)), max_size=80),
    st.lists(st.integers(0, 79), max_size=2),
)
def test_no_span_of_a_window_ever_holds_more_than_its_share(
    calls: list[tuple[float, int]], times_of_asking_again: list[int]
) -> None:
    clock = Clock()
    limits = limits_of(clock, rpm=30, tpm=600, burst_s=10, enforcement="window")
    admitted: list[tuple[float, int]] = []

    for number, (pause_s, wanted) in enumerate(calls):
        clock.now += pause_s
        admission = limits.admit(wanted)
        if number in times_of_asking_again and admission.retry_after_s:
            clock.now += admission.retry_after_s + 1e-6
            admission = limits.admit(wanted)
            assert admission.is_admitted, "who comes when told so is let in"
        if admission.is_admitted:
            admitted.append((clock.now, wanted))

    for start, _ in admitted:
        span = [tokens for at, tokens in admitted if start <= at < start + 10]
        assert len(span) <= 5
        assert sum(span) <= 100


def test_a_window_that_is_lowered_counts_what_was_taken_before() -> None:
    clock = Clock()
    limits = limits_of(clock, rpm=60, burst_s=10, enforcement="window")
    taken = [limits.admit(1).is_admitted for _ in range(10)]

    limits.configure(SimulatorOptions(rpm=30, burst_s=10, enforcement="window"))
    clock.now += 9.0

    assert all(taken)
    assert limits.states()["requests"].remaining == -5
    assert limits.admit(1).retry_after_s == pytest.approx(1.0)
