"""What many items in one round trip come to is what one by one would."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchq.ledger import RedisLedger, connect, summary_of
from batchq.ledger.bulk import BulkLedger
from batchq.ledger.keys import HAND
from batchq.outcome import Attempt, ItemError, Outcome, State, Summary, Usage
from batchq.plan import StepSpec
from batchq.ports import TRIED, Claim, ItemRef
from batchq.progress import RunState
from batchq.settings import redis_client_url

RUN = "r1"
REFS = [ItemRef(RUN, 1, 0, index) for index in range(4)]
ABOUT = {"created_at": "1", "pipeline": "p", "version": "v0", "folder": "f", "steps": "a"}


def ok(index: int) -> Outcome:
    tried = (Attempt(1, 0.0, 0.1, error=ItemError("task", "once")), Attempt(2, 0.0, 0.1))
    return Outcome(f"i{index}", index, State.OK, {"a": 1}, attempts=tried, usage=Usage(1, 10, 5))


def failed(index: int) -> Outcome:
    return replace(ok(index), state=State.FAILED, output=None, error=ItemError("task", "no"))


@pytest.fixture
def ledger(redis_url) -> RedisLedger:
    made = RedisLedger(connect(redis_client_url(redis_url), patience_s=2))
    made.register(RUN, ABOUT, [StepSpec(1, "a", ())])
    made.start_step(RUN, 1, total=9, batches=1, max_failures=None, done=Summary())
    made.open_batch(RUN, 1, 0, dispatches=1)
    return made


@pytest.fixture
def bulk(ledger) -> BulkLedger:
    return BulkLedger(ledger)


def take(bulk, marks=("light",), most=9):
    return bulk.take("q", "me/q/1", most=most, most_bytes=1000, marks=marks)


def test_messages_are_taken_in_order_up_to_the_first_that_lacks_a_mark(bulk, redis_client):
    redis_client.lpush("q", "light 1", "light 2", "heavy 3", "light 4")

    assert take(bulk) == [b"light 1", b"light 2"]
    assert take(bulk) == []
    assert redis_client.lrange("q", 0, -1) == [b"light 4", b"heavy 3"]


def test_what_was_taken_is_in_hand_until_more_is_taken(bulk, redis_client):
    redis_client.lpush("q", "light 1", "light 2", b"light \xff 3")

    take(bulk, most=2)
    assert redis_client.lrange(HAND + "me/q/1", 0, -1) == [b"light 2", b"light 1"]
    take(bulk, most=2)

    assert bulk.hands_of("me") == {"q": [b"light \xff 3"]}
    assert bulk.hands_of("me") == {}


def test_what_is_given_back_comes_first_and_in_its_order(bulk, ledger, redis_client):
    redis_client.lpush("q", "light 1", "light 2", "light 3")
    taken = take(bulk, most=2)
    bulk.claim(REFS[:2], "w1")

    bulk.give_back("q", taken, REFS[:2])

    assert take(bulk) == [b"light 1", b"light 2", b"light 3"]
    assert not ledger.leases(RUN, 1, 0)


def test_items_that_nobody_started_are_claimed_and_the_others_left_apart(bulk, ledger):
    ledger.claim(REFS[0], "w1")
    ledger.commit(REFS[1], ok(1))
    ledger.checkpoint(REFS[2], TRIED, [])

    claimed = bulk.claim(REFS, "w2")

    assert claimed.verdicts == {REFS[1]: Claim.DONE, REFS[3]: Claim.RUN}
    assert {index: one.owner for index, one in ledger.leases(RUN, 1, 0).items()} == {
        0: "w1",
        3: "w2",
    }


def test_nothing_is_claimed_of_a_run_that_stands_still_or_a_batch_that_is_closed(bulk, ledger):
    ledger.set_state(RUN, RunState.PAUSED)
    assert set(bulk.claim(REFS, "w1").verdicts.values()) == {Claim.STOPPED}

    ledger.set_state(RUN, RunState.RUNNING)
    ledger.close_batch(RUN, 1, 0)

    assert set(bulk.claim(REFS, "w1").verdicts.values()) == {Claim.DONE}
    assert not ledger.leases(RUN, 1, 0)


def test_outcomes_are_kept_and_counted_once(bulk, ledger):
    bulk.claim(REFS, "w1")
    ledger.commit(REFS[0], ok(0))
    ones = [(REFS[0], failed(0)), (REFS[1], ok(1)), (REFS[2], failed(2))]

    assert bulk.commit(ones) == frozenset()
    assert bulk.commit(ones) == frozenset()

    assert ledger.outcomes(RUN, 1, 0) == [ok(0), ok(1), failed(2)]
    expected = sum(map(Summary.of, [ok(0), ok(1), failed(2)]), Summary())
    assert summary_of(ledger.counters(RUN, 1)) == expected
    assert ledger.recent(RUN) == ("i2: task: no",)
    assert set(ledger.leases(RUN, 1, 0)) == {3}


def test_a_failure_too_many_halts_the_run(bulk, ledger):
    ledger.set_counters(RUN, 1, {"max_failures": 0})

    assert bulk.commit([(REFS[0], ok(0))]) == frozenset()
    assert bulk.commit([(REFS[1], failed(1))]) == {RUN}
    assert ledger.about(RUN)["reason"] == "1 items of step 1 failed, 0 are allowed"


def test_outcomes_of_a_closed_batch_are_dropped(bulk, ledger):
    ledger.close_batch(RUN, 1, 0)

    bulk.commit([(REFS[0], ok(0))])

    assert not ledger.outcomes(RUN, 1, 0)
    assert summary_of(ledger.counters(RUN, 1)) == Summary()
