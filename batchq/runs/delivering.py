"""Takes what a provider answered to an upload into the run folder, whatever its files hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from batchq.endpoint import Prices
from batchq.engine.delivered import NO_ANSWER, Delivered
from batchq.engine.uploading import index_of
from batchq.errors import ResultsCutOff, UploadCancelled, UploadExpired
from batchq.outcome import Usage
from batchq.store.uploads import Ended, KeptUpload, UploadStore
from batchq.uploads import UploadAnswer

MISSING = "the provider's results have no line for this item{why}"


@dataclass
class Delivery:
    """What the results of an upload came to: counts by the names of `store.uploads.Ended`."""

    counts: Counter[str] = field(default_factory=Counter)
    usage: Usage = Usage()
    is_cut_off: bool = False

    @property
    def is_strange(self) -> bool:
        """Whether there were answers, and none of them was ours."""
        named = ("answered", "failed", "expired")
        return bool(self.counts["unknown"]) and not any(self.counts[name] for name in named)

    def ended(self, at: float, reason: str) -> Ended:
        """The record of it."""
        return Ended("ended", at, reason, usage=self.usage, **self.counts)


def deliver(
    store: UploadStore,
    upload: KeptUpload,
    answers: Iterable[UploadAnswer],
    prices: Prices | None,
    *,
    why: str = "",
) -> Delivery:
    """Writes the answers of an upload down by item, and counts them.

    Of two answers to one item the first counts; a line that is not ours is passed over; an item
    without any gets an error that says so, and `why`. Lines that were cancelled are left out:
    nobody has worked at them.
    """
    delivery = Delivery()
    store.write_answers(upload.intent.number, _rows(upload, answers, prices, delivery, why))
    return delivery


def _rows(
    upload: KeptUpload,
    answers: Iterable[UploadAnswer],
    prices: Prices | None,
    delivery: Delivery,
    why: str,
) -> Iterator[tuple[int, Delivered]]:
    intent, counts = upload.intent, delivery.counts
    seen: set[int] = set()
    for answer in answers:
        if isinstance(answer.error, ResultsCutOff):
            delivery.is_cut_off = True
            continue
        index = index_of(intent.tag, answer.id)
        if index is None or not intent.has(index):
            counts["unknown"] += 1
            continue
        if index in seen:
            counts["repeated"] += 1
            continue
        seen.add(index)
        counts[_word(answer)] += 1
        if isinstance(answer.error, UploadCancelled):
            continue
        one = _delivered(intent.tag, answer)
        delivery.usage += one.usage(prices)
        yield index, one
    why = why or (": they are cut off" if delivery.is_cut_off else "")
    for index in intent.all_indexes():
        if index in seen:
            continue
        if upload.cancelled_at is not None:
            counts["cancelled"] += 1
            continue
        counts["missing"] += 1
        yield index, Delivered(intent.tag, kind=NO_ANSWER, message=MISSING.format(why=why))


def _word(answer: UploadAnswer) -> str:
    if isinstance(answer.error, UploadExpired):
        return "expired"
    if isinstance(answer.error, UploadCancelled):
        return "cancelled"
    return "failed" if answer.error is not None else "answered"


def _delivered(tag: str, answer: UploadAnswer) -> Delivered:
    if answer.error is not None:
        return Delivered.error(tag, answer.error)
    assert answer.reply is not None  # the seam: one of the two
    return Delivered.reply(tag, answer.reply)
