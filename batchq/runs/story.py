"""One item's whole story: what became of it in every step, and in which version."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from batchq.errors import RunNotFound
from batchq.outcome import Attempt, Json, Outcome, Summary
from batchq.runs.versions import Version, family_of, find_item, name_of, unknown_item
from batchq.store import RunFolder, safe_name
from batchq.store.earlier import find as find_earlier
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
    name = safe_name(place.item.id)
    output = f"items/{name}/{place.step:02d}_output.json"
    prompt = f"prompts/{place.step:02d}_prompt_{name}.md"
    has_prompt = folder.files.exists(prompt)
    has_output = outcome is not None and outcome.is_ok and folder.files.exists(output)
    shaped = shape(outcome, step.output) if outcome is not None and outcome.is_ok else None
    text = folder.files.read(prompt).decode(errors="replace") if has_prompt else ""
    return StepStory(
        number=place.step,
        step=step.spec.name,
        item_id=place.item.id,
        version=version.version,
        outcome=outcome,
        is_reached=True,
        output=shaped,
        output_path=folder.files.full(output) if has_output else "",
        prompt_path=folder.files.full(prompt) if has_prompt else "",
        prompt=text,
        is_edited=has_output and not _holds(folder, output, shaped),
        earlier=None if outcome else find_earlier(folder, place.step, place.item.index),
    )


def _holds(folder: RunFolder, path: str, value: Json) -> bool:
    try:
        return bool(json.loads(folder.files.read(path)) == value)
    except ValueError:
        return False
