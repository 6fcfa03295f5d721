"""One item's whole story: what became of it in every step, and in which version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchq.errors import RunNotFound
from batchq.outcome import Attempt, Json, Outcome, Summary
from batchq.runs.versions import Version, family_of, find_item, name_of, unknown_item
from batchq.store.earlier import find as find_earlier
from batchq.store.itemfiles import find_output, find_prompt
from batchq.store.marks import Mark, marks_of
from batchq.store.rows import shape
from batchq.store.search import Place, find_index, read_outcome


@dataclass(frozen=True, slots=True)
class StepStory:
    """What became of an item in one step.

    `version` is the one that ran it; `outcome` is None while it has not ended, and where it never
    came because a step before failed; `earlier` is how it ended before a retry that waits for it.
    `output` is shaped as in its file, and `is_edited` says that the file is not what was written.
    """

    number: int
    step: str
    item_id: str
    version: str
    outcome: Outcome | None
    is_reached: bool
    output: Json = None
    output_path: str = ""
    prompt_path: str = ""
    prompt: str = ""
    is_edited: bool = False
    earlier: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """One item over all steps. `lineage` starts with the version asked for, its base follows."""

    pipeline: str
    version: str
    item_id: str
    index: int
    lineage: tuple[str, ...]
    mark: Mark | None
    steps: tuple[StepStory, ...]
    data: Json

    @property
    def summary(self) -> Summary:
        """All steps together."""
        ended = (one.outcome or one.earlier for one in self.steps)
        return sum((Summary.of(one) for one in ended if one), Summary())


def rounds(attempts: Sequence[Attempt]) -> list[int]:
    """Numbers the rounds that attempts belong to, from 1: each retry begins another one."""
    found: list[int] = []
    last: dict[str, int] = {}
    number = 1
    for attempt in attempts:
        if attempt.number <= last.get(attempt.stage, 0):
            number += 1
            last = {}
        last[attempt.stage] = attempt.number
        found.append(number)
    return found


def tell(version: Version, item_id: str) -> Story:
    """Tells an item's story over all steps; raises RunNotFound with the nearest ids."""
    chain = version.chain()
    found = find_item(chain, item_id)
    if found is None:
        raise RunNotFound(unknown_item(chain, item_id))
    steps = family_of(version.plan, found.step)
    name = name_of(chain, found)
    return Story(
        pipeline=version.pipeline,
        version=version.version,
        item_id=name,
        index=found.item.index,
        lineage=tuple(one.version for one in chain),
        mark=marks_of(version.folder).get(name),
        steps=tuple(_step_story(chain, number, found.item.index) for number in steps),
        data=found.item.data,
    )


def _step_story(chain: list[Version], number: int, index: int) -> StepStory:
    for version in chain:
        place = find_index(version.folder, number, index)
        if place is not None:
            return _told(version, place)
        if _is_redone(version, number, index):
            break  # it is to run here, and has not come to this step
    return StepStory(
        number, chain[0].plan.step(number).spec.name, "", chain[0].version, None, is_reached=False
    )


def _is_redone(version: Version, number: int, index: int) -> bool:
    rerun = version.folder.rerun()
    if rerun is None:
        return True
    redo = rerun.redo[number]
    return redo.kind == "all" or (redo.kind == "some" and index in rerun.chosen.get(redo.root, ()))


def _told(version: Version, place: Place) -> StepStory:
    folder, step = version.folder, version.plan.step(place.step)
    outcome = read_outcome(folder, place)
    where = (folder.files, place.step, place.position // step.pacing.batch_size, place.item.id)
    prompt_path, text = find_prompt(*where) or ("", "")
    is_ok = outcome is not None and outcome.is_ok
    output_path, written = (find_output(*where) if is_ok else None) or ("", None)
    shaped = shape(outcome, step.output) if outcome is not None and outcome.is_ok else None
    return StepStory(
        number=place.step,
        step=step.spec.name,
        item_id=place.item.id,
        version=version.version,
        outcome=outcome,
        is_reached=True,
        output=shaped,
        output_path=folder.files.full(output_path) if output_path else "",
        prompt_path=folder.files.full(prompt_path) if prompt_path else "",
        prompt=text,
        is_edited=bool(output_path) and written != shaped,
        earlier=None if outcome else find_earlier(folder, place.step, place.item.index),
    )
