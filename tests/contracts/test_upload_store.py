"""The uploads of a step in its run folder, on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchq.endpoint import Prices
from batchq.engine.delivered import NO_ANSWER, Delivered
from batchq.errors import BadRequest, ResultsCutOff, UploadCancelled, UploadExpired
from batchq.outcome import Attempt, Outcome, State, Usage
from batchq.ports import ChatReply
from batchq.runs.delivering import deliver
from batchq.store import RunFolder, earlier
from batchq.store.uploads import Created, Ended, Intent, UploadStore, is_ready
from batchq.uploads import UploadAnswer

TAG = "run-1-0"
REPLY = ChatReply("yes", "m", Usage(1, 10, 2))


def intent(number: int = 0, first: int = 0, last: int = 1, **more: object) -> Intent:
    values = {
        "number": number,
        "tag": f"run-1-{number}",
        "round": 0,
        "first": first,
        "last": last,
        "cuts": False,
        "indexes": ((0, 3), (5, 6)),
        "lines": 4,
        "need": Usage(),
        "at": 1.0,
        "tried_at": 1.0,
    }
    return Intent(**values | more)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.open(str(tmp_path / "v0"))


@pytest.fixture
def store(folder: RunFolder) -> UploadStore:
    return UploadStore(folder, 1)


def line(index: int, error: Exception | None = None) -> UploadAnswer:
    if error is not None:
        return UploadAnswer(f"{TAG}-{index}", error=error)  # type: ignore[arg-type]
    return UploadAnswer(f"{TAG}-{index}", reply=REPLY)


def test_an_upload_is_what_was_written_of_it(store: UploadStore) -> None:
    store.intend(intent())
    (meant,) = store.all()
    assert store.note_created(0, Created("b1", 2.0))
    (made,) = store.all()
    store.note_cancel(0, 3.0)
    store.note_ended(0, Ended("ended", 4.0, answered=2))

    (ended,) = store.all()

    assert (meant.created, meant.is_running) == (None, False)
    assert (made.is_running, made.created) == (True, Created("b1", 2.0))
    assert (ended.is_running, ended.cancelled_at) == (False, 3.0)
    assert ended.ended == Ended("ended", 4.0, answered=2)


def test_of_two_who_made_an_upload_the_first_is_kept(store: UploadStore) -> None:
    store.intend(intent())

    first, second = (store.note_created(0, Created(name, 2.0)) for name in ("b1", "b2"))

    assert (first, second) == (True, False)
    assert store.one(0).created == Created("b1", 2.0)


def test_answers_come_in_any_order_twice_unknown_or_not_at_all(store: UploadStore) -> None:
    store.intend(intent())
    answers = [
        line(5),
        UploadAnswer("other-1-0-2", reply=REPLY),
        line(1, UploadExpired("too late")),
        line(5, BadRequest("no")),
        UploadAnswer("", error=BadRequest("not JSON")),
        line(0),
    ]

    delivery = deliver(store, store.one(0), answers, Prices(1, 1))

    store.note_ended(0, delivery.ended(9.0, ""))
    found = store.answers([0, 1, 2, 3, 5])
    assert delivery.counts == {
        "answered": 2,
        "expired": 1,
        "missing": 1,
        "unknown": 2,
        "repeated": 1,
    }
    assert delivery.usage == Usage(2, 20, 4, 24_000)
    assert {index: one.kind for index, one in found.items()} == {
        0: "", 1: "expired", 2: NO_ANSWER, 5: "",
    }  # fmt: skip
    assert found[0].text == "yes"


def test_lines_that_were_cancelled_have_no_answer_and_can_be_sent_again(
    store: UploadStore,
) -> None:
    store.intend(intent())
    store.note_cancel(0, 3.0)

    delivery = deliver(store, store.one(0), [line(0), line(1, UploadCancelled("stopped"))], None)

    store.note_ended(0, delivery.ended(9.0, ""))
    assert delivery.counts == {"answered": 1, "cancelled": 3}
    assert store.answers([0, 1, 2, 5]).keys() == {0}


def test_results_that_are_cut_off_are_told(store: UploadStore) -> None:
    store.intend(intent())
    cut = UploadAnswer("", error=ResultsCutOff("half a line"))

    delivery = deliver(store, store.one(0), [line(0), cut], None)

    assert delivery.is_cut_off
    assert delivery.counts == {"answered": 1, "missing": 3}


def test_results_of_somebody_else_are_strange(store: UploadStore) -> None:
    store.intend(intent())

    delivery = deliver(store, store.one(0), [UploadAnswer("x-1-0-1", reply=REPLY)], None)

    assert delivery.is_strange


def test_an_answer_that_was_used_before_a_retry_is_not_used_again(
    folder: RunFolder, store: UploadStore
) -> None:
    store.intend(intent())
    deliver(store, store.one(0), [line(0), line(1)], None)
    store.note_ended(0, Ended("ended", 9.0))
    tried = Attempt(1, 0.0, 0.0, upload=TAG)
    failed = Outcome("0", 0, State.FAILED, attempts=(tried,))

    earlier.keep(folder, 1, [failed])

    assert store.answers([0, 1]).keys() == {1}


def test_a_batch_waits_for_all_uploads_that_have_items_of_it(store: UploadStore) -> None:
    store.intend(intent(0, 0, 1, cuts=True))
    store.intend(intent(1, 1, 2))
    store.note_ended(0, Ended("ended", 9.0))

    half = [is_ready(batch, store.all(), 0, goes_online=False) for batch in range(4)]
    store.note_ended(1, Ended("ended", 9.0))
    whole = [is_ready(batch, store.all(), 0, goes_online=False) for batch in range(4)]
    online = is_ready(3, store.all(), 0, goes_online=True)

    assert half == [True, False, False, False]
    assert whole == [True, True, True, False]
    assert online


def test_a_refused_upload_covers_nothing(store: UploadStore) -> None:
    store.intend(intent())
    store.note_ended(0, Ended("rejected", 9.0, "no"))

    assert not is_ready(0, store.all(), 0, goes_online=False)
    assert is_ready(0, store.all(), 0, goes_online=True)


def test_a_retry_begins_a_round_that_earlier_uploads_do_not_cover(store: UploadStore) -> None:
    store.begin_round()
    before = store.round()
    store.intend(intent())
    store.note_ended(0, Ended("ended", 9.0))

    store.begin_round()

    assert (before, store.round()) == (0, 1)
    assert not is_ready(0, store.all(), store.round(), goes_online=False)


def test_a_delivered_error_is_that_of_a_call() -> None:
    error = BadRequest("too long", raw="half", tokens=(5, 1))

    found = Delivered.error(TAG, error).as_error()

    assert isinstance(found, BadRequest)
    assert (str(found), found.raw, found.tokens, found.retryable) == (
        "too long",
        "half",
        (5, 1),
        False,
    )
