"""Opens failed items of a version up again, so that a resume runs them in the same version."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from batchq.engine.lineage import redo_steps
from batchq.outcome import Outcome
from batchq.store import earlier
from batchq.store.folder import RunFolder
from batchq.store.layout import carried_path
from batchq.store.lines import to_line
from batchq.store.uploads import UploadStore


def reopen(folder: RunFolder, is_again: Callable[[Outcome], bool]) -> int:
    """Takes the failed outcomes for which `is_again` holds out of a version; returns how many.

    What was tried and paid for them is kept, for their next outcome to take up. Their batches are
    parked with what else they hold. A later step is laid out anew by the coordinator, since items
    that come to it now stand between others; what it has is carried over by index. Safe to stop
    in the middle and to do again.
    """
    plan = folder.read_plan()
    again = {
        step.spec.number: {
            line.index
            for line in folder.lines(step.spec.number, only_failed=True)
            if is_again(line.outcome)
        }
        for step in plan.steps
    }
    roots = {step.spec.number: [0] for step in plan.steps if step.input.source}
    kinds = redo_steps(plan, roots)
    touched: set[int] = set()
    numbers = {step.spec.name: step.spec.number for step in plan.steps}
    for step in plan.steps:
        number = step.spec.number
        UploadStore(folder, number).begin_round()
        follows = not step.input.source and numbers[step.needs[-1]] in touched
        if not again[number] and not follows:
            continue
        touched.add(number)
        folder.unmark_done(number)
        if follows:
            keeps = kinds[number].kind == "some"
            _carry(folder, number, again[number] if keeps else None)
        else:
            _park(folder, number, again[number])
    return sum(map(len, again.values()))


def _park(folder: RunFolder, step: int, again: set[int]) -> None:
    collated = folder.collated_batches(step)
    for number in collated | folder.parked_batches(step):
        read = folder.read_batch if number in collated else folder.parked
        outcomes = read(step, number)
        kept = [one for one in outcomes if one.index not in again]
        if len(kept) < len(outcomes):
            earlier.keep(folder, step, (one for one in outcomes if one.index in again))
            folder.reopen_batch(step, number, kept)


def _carry(folder: RunFolder, step: int, again: set[int] | None) -> None:
    """Keeps a step's outcomes but those in `again` apart from its batches; None keeps none."""
    earlier.keep(
        folder,
        step,
        (one.outcome for one in folder.lines(step) if again is None or one.index in again),
    )
    if again is not None:
        kept = {one.index: one for one in carried(folder, step)}
        kept |= {one.index: one for one in folder.outcomes(step) if one.index not in again}
        lines = b"".join(to_line(kept[index]) for index in sorted(kept.keys() - again))
        folder.files.write(carried_path(step), lines, durable=True)
    folder.forget_items(step)


def carried(folder: RunFolder, step: int) -> Iterator[Outcome]:
    """The outcomes that wait to be put into the batches of a step that is laid out anew."""
    path = carried_path(step)
    if folder.files.exists(path):
        yield from folder.read_record(path)


def lay_out(folder: RunFolder, step: int, batch_size: int) -> None:
    """Parks the outcomes that were carried over in the batches that their items are in now."""
    found = {one.index: one for one in carried(folder, step)}
    if not found:
        return
    output = folder.read_plan().step(step).output
    number = 0
    while items := folder.batch(step, number, batch_size):
        kept = [found[item.index] for item in items if item.index in found]
        if kept:
            folder.park_batch(step, number, kept, output)
        number += 1
    folder.files.remove(carried_path(step))
