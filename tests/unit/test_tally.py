from __future__ import annotations

import os
import threading

import pytest

from batchq.endpoint import Limits, ProviderSpec, RateLimit
from batchq.engine.counting import CountingLimiter, count_outcome
from batchq.engine.tally import MAX_SERIES, OTHER, Tally
from batchq.limiter import MemoryLimiter
from batchq.outcome import Attempt, ItemError, Outcome, State, Usage
from batchq.plan import StageSpec, StepSpec
from batchq.ports import Feedback, Reservation, Verdict


def test_what_was_drained_is_not_drained_again_and_what_was_taken_back_is() -> None:
    tally = Tally()
    tally.add("item_retries", amount=2)
    first = tally.drain()
    tally.add("item_retries")

    second = tally.drain()
    tally.take_back(second)

    assert first == {("item_retries",): 2}
    assert second == {("item_retries",): 1}
    assert tally.drain() == second
    assert tally.drain() == {}
    assert tally.totals() == {("item_retries",): 3}


def test_durations_are_counted_by_bucket_with_their_sum() -> None:
    tally = Tally()

    for seconds in (0.05, 0.2, 1000.0):
        tally.observe("call_seconds", "deepseek", seconds=seconds)

    counted = tally.totals()
    assert counted["call_seconds", "deepseek", "0.05"] == 1
    assert counted["call_seconds", "deepseek", "0.25"] == 1
    assert counted["call_seconds", "deepseek", "inf"] == 1
    assert counted["call_seconds", "deepseek", "sum"] == pytest.approx(1000.25)


def test_a_label_with_too_many_values_is_counted_as_other() -> None:
    tally = Tally()

    for number in range(MAX_SERIES + 5):
        tally.add("calls", f"provider {number}", "answered")

    counted = tally.totals()
    assert len(counted) == MAX_SERIES + 1
    assert counted["calls", OTHER, OTHER] == 5


def test_threads_lose_no_count() -> None:
    tally = Tally()

    def count() -> None:
        for _ in range(1000):
            tally.add("item_retries")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert tally.totals() == {("item_retries",): 8000}


def test_a_fork_begins_anew() -> None:
    tally = Tally()
    tally.add("item_retries")

    pid = os.fork()
    if pid == 0:
        os._exit(len(tally.totals()))
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert tally.totals() == {("item_retries",): 1}


PROVIDER = ProviderSpec(
    "deepseek", "openai", "http://x", "m", limits=Limits((RateLimit("rpm", "requests", 1, 60),))
)


def test_an_outcome_is_counted_by_state_provider_and_what_it_used() -> None:
    tally = Tally()
    spec = StepSpec(1, "grade", (StageSpec("", "prompt", prompt="x", provider=PROVIDER),))
    failed = Attempt(1, 0.0, 1.0, error=ItemError("schema", "wrong"), usage=Usage(1, 10, 5, 10**9))
    again = Attempt(2, 1.0, 2.0, usage=Usage(1, 12, 6, 0, 1))
    outcome = Outcome(
        "a", 0, State.OK, output={}, attempts=(failed, again), started_at=1.0, ended_at=4.0
    )

    count_outcome(tally, spec, outcome)

    counted = tally.totals()
    assert counted["items_ended", "ok", ""] == 1
    assert counted["item_retries",] == 1
    assert counted["item_seconds", "ok", "sum"] == 3.0
    assert counted["tokens", "deepseek", "input"] == 22
    assert counted["tokens", "deepseek", "output"] == 11
    assert counted["cost_usd", "deepseek"] == 1.0
    assert counted["unpriced_calls", "deepseek"] == 1


def test_a_failed_item_of_an_unknown_step_is_counted_by_its_kind() -> None:
    tally = Tally()

    count_outcome(
        tally, None, Outcome("a", 0, State.FAILED, error=ItemError("worker_lost", "gone"))
    )

    assert tally.totals()["items_ended", "failed", "worker_lost"] == 1


def test_a_limiter_is_counted_by_what_held_calls_back_and_how_long_they_took() -> None:
    now = [100.0]
    tally = Tally()
    limiter = CountingLimiter(MemoryLimiter(clock=lambda: now[0]), tally, lambda: now[0])
    first = Reservation(PROVIDER, "run/1", 1, 60.0)
    second = Reservation(PROVIDER, "run/2", 1, 60.0, patience_s=3.0)

    assert limiter.reserve(first).is_granted
    now[0] += 0.7
    limiter.settle(first, 1, Feedback(Verdict.REFUSED))
    limiter.settle(first, 1, Feedback(Verdict.REFUSED))
    held = limiter.reserve(second)

    counted = tally.totals()
    assert counted["calls", "deepseek", "refused"] == 1
    assert counted["call_seconds", "deepseek", "sum"] == pytest.approx(0.7)
    assert counted["waits", "deepseek", held.blocked_by] == 1
    assert counted["wait_seconds", "deepseek", held.blocked_by] > 0
