from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.lock import Lock

from batchq.ledger import MemoryLedger, RedisLedger, connect, summary_of
from batchq.outcome import Attempt, ItemError, Outcome, State, Summary, Usage
from batchq.plan import StepSpec
from batchq.ports import TRIED, Claim, ItemRef, OpenBatch
from batchq.progress import RunState
from batchq.settings import redis_client_url

RUN = "r1"
REF = ItemRef(RUN, 1, 0, 7)
OK = Outcome("seven", 7, State.OK, {"a": 1}, usage=Usage(1, 10, 5, 300))
FAILED = replace(OK, state=State.FAILED, output=None, error=ItemError("timeout", "too slow"))
ABOUT = {"created_at": "1", "pipeline": "p", "version": "v0", "folder": "f", "steps": "a"}


class InRedis:
    def __init__(self, ledger: RedisLedger) -> None:
        self.ledger = ledger
        ledger.register(RUN, ABOUT, [StepSpec(1, "a", ())])
        ledger.start_step(RUN, 1, total=9, batches=1, max_failures=None, done=Summary())
        ledger.open_batch(RUN, 1, 0, dispatches=1)

    def live(self, owner: str) -> None:
        self.ledger.beat(owner, 60)

    def stop(self) -> None:
        self.ledger.set_state(RUN, RunState.PAUSED, "a person")

    def summary(self) -> Summary:
        return summary_of(self.ledger.counters(RUN, 1))


class InMemory:
    def __init__(self) -> None:
        self.owners: set[str] = set()
        self.ledger = MemoryLedger(self.owners)

    def live(self, owner: str) -> None:
        self.owners.add(owner)

    def stop(self) -> None:
        self.ledger.running = False

    def summary(self) -> Summary:
        return self.ledger.summary


@pytest.fixture
def redis_ledger(redis_url) -> RedisLedger:
    return RedisLedger(connect(redis_client_url(redis_url), patience_s=2))


@pytest.fixture(params=["redis", "memory"])
def world(request):
    if request.param == "memory":
        return InMemory()
    return InRedis(request.getfixturevalue("redis_ledger"))


def test_a_new_item_is_ours_to_run(world):
    result = world.ledger.claim(REF, "w1")

    assert (result.claim, result.starts) == (Claim.RUN, 1)


def test_an_item_that_a_live_process_holds_is_held(world):
    world.live("w1")
    world.ledger.claim(REF, "w1")

    assert world.ledger.claim(REF, "w2").claim is Claim.HELD
    assert world.ledger.claim(REF, "w1").claim is Claim.HELD


def test_a_claim_whose_answer_was_lost_on_the_way_is_granted_when_asked_again(redis_ledger):
    world = InRedis(redis_ledger)
    world.live("w1")
    is_lost = [True]
    read = AbstractConnection.read_response

    def lose_one(self, *args, **kwargs):
        answer = read(self, *args, **kwargs)
        if isinstance(answer, list) and is_lost and answer[0] in ("run", b"run"):
            is_lost.clear()
            raise RedisConnectionError("cut off")
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AbstractConnection, "read_response", lose_one)
        result = world.ledger.claim(REF, "w1")

    assert not is_lost
    assert (result.claim, result.starts) == (Claim.RUN, 1)
    assert world.ledger.claim(REF, "w1").claim is Claim.HELD


def test_an_item_of_a_dead_process_can_be_claimed_and_its_starts_are_counted(world):
    world.ledger.claim(REF, "dead")

    result = world.ledger.claim(REF, "w2")

    assert (result.claim, result.starts) == (Claim.RUN, 2)


def test_checkpoints_are_there_for_the_next_who_claims_the_item(world):
    world.ledger.claim(REF, "dead")
    world.ledger.checkpoint(REF, "normalize", {"x": "ü"})
    world.ledger.checkpoint(replace(REF, index=70), "normalize", "of another item")

    result = world.ledger.claim(REF, "w2")

    assert result.checkpoints == {"normalize": {"x": "ü"}}


def test_checkpoints_of_an_item_that_was_left_for_a_pause_are_there_when_it_goes_on(world):
    world.ledger.claim(REF, "w1")
    world.ledger.checkpoint(REF, "normalize", {"x": "ü"})
    world.ledger.checkpoint(REF, TRIED, [{"number": 1}])
    world.ledger.release(REF)

    result = world.ledger.claim(REF, "w2")

    assert (result.claim, result.starts) == (Claim.RUN, 1)
    assert result.checkpoints == {"normalize": {"x": "ü"}, TRIED: [{"number": 1}]}


def test_the_first_outcome_wins_and_is_counted_once(world):
    world.ledger.claim(REF, "w1")

    assert world.ledger.commit(REF, OK)
    assert not world.ledger.commit(REF, FAILED)

    assert world.summary() == Summary.of(OK)
    assert world.ledger.claim(REF, "w2").claim is Claim.DONE


def test_two_processes_at_once_cannot_both_run_an_item(world):
    owners = [f"w{number}" for number in range(8)]
    for owner in owners:
        world.live(owner)
    claims: list[Claim] = []
    threads = [
        threading.Thread(target=lambda o=owner: claims.append(world.ledger.claim(REF, o).claim))
        for owner in owners
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claims) == [Claim.HELD] * 7 + [Claim.RUN]


def test_a_released_item_can_be_claimed_again(world):
    world.live("w1")
    world.ledger.claim(REF, "w1")
    world.ledger.release(REF)

    assert world.ledger.claim(REF, "w1").claim is Claim.RUN


def test_no_item_of_a_stopped_run_is_started(world):
    assert world.ledger.is_running(RUN)
    world.stop()

    assert world.ledger.claim(REF, "w1").claim is Claim.STOPPED
    assert not world.ledger.is_running(RUN)


def test_an_item_of_a_collated_batch_is_done(redis_ledger):
    world = InRedis(redis_ledger)
    redis_ledger.close_batch(RUN, 1, 0)

    assert redis_ledger.claim(REF, "w1").claim is Claim.DONE
    assert not redis_ledger.commit(REF, OK)
    assert world.summary() == Summary()


def test_outcomes_come_back_whole_and_in_order(redis_ledger):
    InRedis(redis_ledger)
    attempt = Attempt(1, 2.0, 0.5, 0.1, "", ItemError("rate_limit", "slow down"), Usage(1), "m")
    first = replace(OK, index=2, item_id="zwei", attempts=(attempt,), output=["ü", None, 1.5])
    redis_ledger.commit(REF, OK)
    redis_ledger.commit(replace(REF, index=2), first)

    assert redis_ledger.outcomes(RUN, 1, 0) == [first, OK]


def test_outcomes_that_a_dead_life_of_the_run_left_are_counted_when_their_batch_is_opened(
    redis_ledger,
):
    world = InRedis(redis_ledger)
    redis_ledger.commit(REF, OK)
    redis_ledger.rewind(RUN, [1])
    redis_ledger.start_step(RUN, 1, total=9, batches=1, max_failures=None, done=Summary())

    redis_ledger.open_batch(RUN, 1, 0, dispatches=1, uncounted=Summary.of(OK))

    assert redis_ledger.outcomes(RUN, 1, 0) == [OK]
    assert world.summary() == Summary.of(OK)


def test_too_many_failures_stop_the_run_at_once(redis_ledger):
    InRedis(redis_ledger)
    redis_ledger.start_step(RUN, 1, total=9, batches=1, max_failures=1, done=Summary())

    redis_ledger.commit(REF, FAILED)
    assert redis_ledger.is_running(RUN)
    redis_ledger.commit(replace(REF, index=8), FAILED)

    assert redis_ledger.about(RUN)["state"] == RunState.FAILED
    assert redis_ledger.about(RUN)["reason"] == "2 items of step 1 failed, 1 are allowed"
    assert redis_ledger.recent(RUN)[0] == "seven: timeout: too slow"


def test_an_open_batch_tells_when_and_how_often_it_was_sent(redis_ledger):
    InRedis(redis_ledger)
    redis_ledger.open_batch(RUN, 1, 3, dispatches=2)

    opened = redis_ledger.open_batches(RUN)

    assert opened[1, 3] == OpenBatch(opened[1, 3].sent_at, 2)
    assert set(opened) == {(1, 0), (1, 3)}


def test_items_in_flight_are_those_that_were_started_and_have_no_outcome(redis_ledger):
    InRedis(redis_ledger)
    for index in (1, 2, 3):
        redis_ledger.claim(replace(REF, index=index), "w1")
    redis_ledger.commit(replace(REF, index=2), OK)

    assert redis_ledger.in_flight(RUN) == 2
    assert redis_ledger.leases(RUN, 1, 0).keys() == {1, 3}


def test_a_run_that_is_over_leaves_no_key_for_ever(redis_ledger, redis_client):
    InRedis(redis_ledger)
    redis_ledger.commit(REF, OK)
    redis_ledger.close_batch(RUN, 1, 0)

    redis_ledger.forget(RUN)

    assert redis_ledger.runs() == []
    assert all(redis_client.ttl(key) > 0 for key in redis_client.scan_iter())


def test_a_run_is_due_when_somebody_asked_and_again_later_by_itself(redis_ledger):
    InRedis(redis_ledger)

    assert redis_ledger.take_due(100.0, again_s=5) == [RUN]
    assert redis_ledger.take_due(101.0, again_s=5) == []
    assert redis_ledger.take_due(105.0, again_s=5) == [RUN]
    redis_ledger.look_at(RUN)
    assert redis_ledger.take_due(106.0, again_s=5) == [RUN]


def test_a_batch_that_was_settled_meanwhile_is_not_opened_again(redis_ledger):
    InRedis(redis_ledger)
    opened = redis_ledger.open_batches(RUN)[1, 0]

    sent_at = redis_ledger.reopen_batch(RUN, 1, 0, opened, dispatches=2)
    late = redis_ledger.reopen_batch(RUN, 1, 0, opened, dispatches=2)
    again = redis_ledger.open_batches(RUN)[1, 0]
    redis_ledger.close_batch(RUN, 1, 0)
    closed = redis_ledger.reopen_batch(RUN, 1, 0, again, dispatches=3)

    assert again == OpenBatch(sent_at, 2)
    assert late is None
    assert closed is None
    assert redis_ledger.open_batches(RUN) == {}


def test_a_lock_is_renewed_for_as_long_as_its_holder_works(redis_ledger, monkeypatch, wait_for):
    monkeypatch.setattr("batchq.ledger.redis.LOCK_S", 0.6)
    renewed = []
    real = Lock.reacquire

    def reacquire(lock):
        renewed.append(real(lock))
        return renewed[-1]

    monkeypatch.setattr(Lock, "reacquire", reacquire)

    with redis_ledger.lock(RUN) as is_mine:
        wait_for(lambda: len(renewed) >= 4, "it was renewed past its first end")
        with redis_ledger.lock(RUN) as is_theirs:
            pass

    assert (is_mine, is_theirs) == (True, False)
    assert all(renewed)


def test_only_one_holds_the_lock_of_a_run(redis_ledger):
    with redis_ledger.lock(RUN) as first, redis_ledger.lock(RUN) as second:
        assert (first, second) == (True, False)

    with redis_ledger.lock(RUN) as again:
        assert again


@pytest.mark.parametrize(
    "nonsense", [b"", b"\xff", b"[1]", b'{"headers": {"sent_at": "x"}}', b"[" * 10**5]
)
def test_nonsense_at_the_head_of_a_queue_counts_as_old(redis_ledger, redis_client, nonsense):
    redis_client.lpush("q", nonsense)

    assert redis_ledger.oldest_message("q") == 0.0
