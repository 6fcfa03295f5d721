"""What was tried of items before a retry opened them up again: it stays paid, so it stays counted.

Kept in `state/NN_earlier/` by index, until the outcome of the retry takes it up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from batchq.outcome import Outcome, Summary
from batchq.store.layout import earlier_folder, uploads_folder
from batchq.store.lines import Line, tally, to_line

if TYPE_CHECKING:
    from batchq.store.folder import RunFolder

_FILE_ITEMS = 500
"""Indexes that share a file: what a batch asks for is in one or two of them."""


def keep(folder: RunFolder, step: int, outcomes: Iterable[Outcome]) -> None:
    """Keeps what was tried in outcomes that are about to be taken out of a version."""
    files: defaultdict[int, dict[int, Outcome]] = defaultdict(dict)
    for one in outcomes:
        if one.attempts:
            files[one.index // _FILE_ITEMS][one.index] = replace(one, output=None, prompts=())
    for number, found in files.items():
        both = _read(folder, step, number) | found
        lines = b"".join(to_line(both[index]) for index in sorted(both))
        folder.files.write(_path(step, number), lines, durable=True)


def find(folder: RunFolder, step: int, index: int) -> Outcome | None:
    """What was tried of an item before; None if nothing was."""
    return _read(folder, step, index // _FILE_ITEMS).get(index)


def uploads_tried(folder: RunFolder, step: int, indexes: Collection[int]) -> dict[int, set[str]]:
    """The uploads whose answers items had used before a retry, by index."""
    if not folder.files.exists(earlier_folder(step)):
        return {}
    before: dict[int, Outcome] = {}
    for number in {index // _FILE_ITEMS for index in indexes}:
        before |= _read(folder, step, number)
    return {
        index: {attempt.upload for attempt in before[index].attempts}
        for index in indexes
        if index in before
    }


def with_earlier(folder: RunFolder, step: int, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Puts what was tried before in front of each outcome that has not taken it up yet."""
    if not folder.files.exists(earlier_folder(step)):
        return [*outcomes]
    before: dict[int, Outcome] = {}
    for number in {one.index // _FILE_ITEMS for one in outcomes}:
        before |= _read(folder, step, number)
    return [_joined(before.get(one.index), one) for one in outcomes]


def count_by(folder: RunFolder, step: int, known: Mapping[int, Summary]) -> Summary:
    """What `count` gives, where `known` may tell what batches came to, by their numbers.

    Of a step that was retried it is not asked: it may be of before. It does not know either what of
    a step went in uploads.
    """
    if any(map(folder.files.exists, (earlier_folder(step), uploads_folder(step)))):
        return count(folder, step)
    collated, total = folder.collated_batches(step), Summary()
    for number in collated | folder.parked_batches(step):
        if number in collated and number in known:
            total += known[number]
        else:
            outcomes = (folder.read_batch if number in collated else folder.parked)(step, number)
            total += sum(map(Summary.of, outcomes), Summary())
    return total


def count(folder: RunFolder, step: int) -> Summary:
    """Counts the outcomes of a step, and what was spent on items that are to run again."""
    left = {
        index: one
        for name in folder.files.names(earlier_folder(step))
        for index, one in _read(folder, step, int(name.partition(".")[0])).items()
    }
    total = tally(_taking_up(folder.lines(step), left))
    return sum(map(_spent, left.values()), total)


def _taking_up(lines: Iterable[Line], left: dict[int, Outcome]) -> Iterator[Line]:
    """Passes lines on; what of `left` an outcome has taken up is taken out."""
    for line in lines:
        if (before := left.get(line.index)) and _holds(line.outcome, before):
            del left[line.index]
        yield line


def _joined(before: Outcome | None, now: Outcome) -> Outcome:
    if before is None or _holds(now, before):
        return now
    attempts = (*before.attempts, *now.attempts)
    return replace(now, attempts=attempts, usage=before.usage + now.usage)


def _holds(now: Outcome, before: Outcome) -> bool:
    return now.attempts[: len(before.attempts)] == before.attempts


def _spent(before: Outcome) -> Summary:
    """What an item that has no outcome has cost; any further try is one beyond the first."""
    tried = len(before.attempts)
    return replace(Summary.of(before), ok=0, failed=0, retries=tried, repaired=0, cached=0)


def _read(folder: RunFolder, step: int, number: int) -> dict[int, Outcome]:
    path = _path(step, number)
    found = folder.read_record(path) if folder.files.exists(path) else []
    return {one.index: one for one in found}


def _path(step: int, number: int) -> str:
    return f"{earlier_folder(step)}/{number:06d}.jsonl"
