from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.engine.retry import LONGEST_RETRY_AFTER_S, backoff_s, decide
from batchq.errors import (
    AuthFailed,
    BadRequest,
    NotJson,
    Overloaded,
    RateLimited,
    RequestTooLarge,
    ServerFailed,
    TaskError,
)
from batchq.plan import RetryPolicy

RNG = random.Random(1)
policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 2000),
    backoff=st.sampled_from(["exponential", "linear", "constant"]),
    base_s=st.floats(0, 100),
    max_delay_s=st.floats(0, 600),
    jitter=st.booleans(),
)


@given(policies, st.integers(1, 2500), st.randoms(use_true_random=False))
def test_a_wait_is_never_negative_nor_above_max_delay(policy, attempt, rng):
    decision = decide(policy, ServerFailed("500"), attempt, rng)

    assert 0 <= decision.wait_s <= policy.max_delay_s
    assert decision.retry == (attempt <= policy.max_retries)


@given(policies, st.floats(0, LONGEST_RETRY_AFTER_S), st.randoms(use_true_random=False))
def test_retry_after_is_never_cut_short(policy, asked_s, rng):
    decision = decide(policy, RateLimited("429", retry_after_s=asked_s), 1, rng)

    assert decision.retry == (policy.max_retries >= 1)
    assert not decision.retry or decision.wait_s >= asked_s


@given(policies, st.integers(1, 100))
def test_waits_grow_with_the_attempts_until_the_maximum(policy, attempt):
    assert backoff_s(policy, attempt) <= backoff_s(policy, attempt + 1) <= policy.max_delay_s


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        ("exponential", [2, 4, 8, 16]),
        ("linear", [2, 4, 6, 8]),
        ("constant", [2, 2, 2, 2]),
    ],
)
def test_each_backoff_grows_by_its_own_rule(backoff, waits):
    policy = RetryPolicy(max_retries=4, backoff=backoff, base_s=2, jitter=False)

    decisions = [decide(policy, Overloaded("529"), attempt, RNG) for attempt in (1, 2, 3, 4)]

    assert [decision.wait_s for decision in decisions] == waits


def test_jitter_spreads_waits_over_the_whole_range():
    policy = RetryPolicy(base_s=10, max_delay_s=10, max_retries=1)
    rng = random.Random(7)

    waits = [decide(policy, ServerFailed("500"), 1, rng).wait_s for _ in range(200)]

    assert min(waits) < 1
    assert max(waits) > 9


def test_a_wait_beyond_max_delay_is_said():
    policy = RetryPolicy(max_delay_s=60)

    decision = decide(policy, RateLimited("429", retry_after_s=300), 1, RNG)

    assert decision.wait_s == 300
    assert "300 s" in decision.note


def test_a_wait_of_more_than_an_hour_is_not_waited_for_and_is_said():
    decision = decide(RetryPolicy(), RateLimited("429", retry_after_s=7200), 1, RNG)

    assert not decision.retry
    assert "7200 s" in decision.note


def test_a_broken_answer_is_asked_again_at_once():
    error = NotJson("no JSON", detail="no JSON", raw="hello")

    decision = decide(RetryPolicy(max_retries=1), error, 1, RNG)

    assert decision.retry
    assert decision.wait_s == 0


def test_broken_answers_are_asked_again_only_so_often():
    error = NotJson("no JSON", detail="no JSON", raw="hello")

    assert not decide(RetryPolicy(max_retries=1), error, 2, RNG).retry


@pytest.mark.parametrize(
    "error",
    [
        AuthFailed("401"),
        BadRequest("400"),
        RequestTooLarge("too large"),
        TaskError("bug", kind="task"),
        ValueError("bug"),
    ],
)
def test_what_another_try_cannot_help_is_not_tried_again(error):
    assert not decide(RetryPolicy(), error, 1, RNG).retry


def test_a_task_that_says_so_is_tried_again():
    assert decide(RetryPolicy(), TaskError("busy", kind="task", retryable=True), 1, RNG).retry
