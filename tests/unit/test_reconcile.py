from __future__ import annotations

import pytest

from batchq.engine.reconcile import MAX_DISPATCHES, Fate, look_at_batch, settle_batch
from batchq.outcome import Outcome, State
from batchq.plan import Item
from batchq.ports import LATER, Lease, OpenBatch
from batchq.progress import RunState

ITEMS = [Item(str(index), index, {}) for index in range(3)]
STOPPED = [RunState.PAUSED, RunState.CANCELLED, RunState.FAILED]
ONCE = OpenBatch(100.0, 1)


def outcomes(*indexes: int) -> list[Outcome]:
    return [Outcome(str(index), index, State.OK) for index in indexes]


def look(state=RunState.RUNNING, leases=None, *, done=(), has_passed=False):
    leases = {index: Lease(owner, 1) for index, owner in (leases or {}).items()}
    given = (ITEMS, outcomes(*done), state, ONCE, leases, {"alive"})
    return look_at_batch(*given, has_passed=has_passed)


def ids(decision) -> list[str]:
    return [item.id for item in decision.items]


@pytest.mark.parametrize("state", RunState)
def test_a_batch_with_every_outcome_is_collated_whatever_the_state(state) -> None:
    assert settle_batch(ITEMS, outcomes(0, 1, 2), state, ONCE).fate is Fate.COLLATE
    assert look(state, done=(0, 1, 2)).fate is Fate.COLLATE


def test_items_lost_on_the_way_are_sent_again() -> None:
    decision = settle_batch(ITEMS, outcomes(1), RunState.RUNNING, ONCE)

    assert decision.fate is Fate.AGAIN
    assert ids(decision) == ["0", "2"]
    assert decision.dispatches == 2


def test_a_batch_that_keeps_losing_items_is_given_up() -> None:
    often = OpenBatch(100.0, MAX_DISPATCHES)

    decision = settle_batch(ITEMS, outcomes(1), RunState.RUNNING, often)

    assert decision.fate is Fate.GIVE_UP
    assert str(decision) == "give up, 2 items: the batch came back without them 3 times"


@pytest.mark.parametrize("state", STOPPED)
def test_an_incomplete_batch_of_a_stopped_run_is_parked(state) -> None:
    assert settle_batch(ITEMS, outcomes(1), state, ONCE).fate is Fate.PARK
    assert look(state, {0: "dead"}).fate is Fate.PARK


@pytest.mark.parametrize("state", STOPPED)
def test_a_batch_of_a_stopped_run_waits_for_items_that_still_run(state) -> None:
    assert look(state, {0: "alive", 1: "dead"}).fate is Fate.WAIT


def test_an_item_whose_process_is_dead_is_lost_and_one_that_runs_is_not() -> None:
    decision = look(leases={0: "dead", 1: "alive"})

    assert decision.fate is Fate.AGAIN
    assert ids(decision) == ["0"]
    assert decision.why == "1 whose process died"
    assert decision.dispatches == ONCE.dispatches


def test_an_item_that_nobody_started_is_lost_once_the_queue_is_empty() -> None:
    decision = look(leases={1: "alive"}, has_passed=True)

    assert ids(decision) == ["0", "2"]
    assert decision.why == "2 whose message was lost"


def test_an_item_that_comes_back_later_is_in_nobodys_hands_and_not_lost() -> None:
    assert look(leases={0: LATER, 1: LATER, 2: LATER}, has_passed=True).fate is Fate.WAIT


def test_items_that_wait_in_the_queue_are_left_there() -> None:
    assert look().fate is Fate.WAIT
