"""What items gave half way in a batch that a pause cut off: their next start goes on from there.

Redis has it as well, but a Redis may be emptied while a run is paused, and it was paid for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from batchq.errors import StoreError
from batchq.store.folder import RunFolder
from batchq.store.layout import stages_path


def keep_stages(folder: RunFolder, step: int, batch: int, stages: Mapping[str, str]) -> None:
    """Writes down what the stages of a batch's items gave: "index:stage" -> its value as JSON."""
    path = stages_path(step, batch)
    if stages:
        text = json.dumps({name: json.loads(value) for name, value in stages.items()})
        folder.files.write(path, text.encode(), durable=True)
    elif folder.files.exists(path):
        folder.files.remove(path)


def kept_stages(folder: RunFolder, step: int, batch: int) -> dict[str, str]:
    """What `keep_stages` wrote down."""
    path = stages_path(step, batch)
    if not folder.files.exists(path):
        return {}
    try:
        found = json.loads(folder.files.read(path))
        return {name: json.dumps(value) for name, value in found.items()}
    except (ValueError, AttributeError) as error:
        raise StoreError(
            f"{folder.files.full(path)}: broken ({error}). Remove it, and its items begin anew"
        ) from error


def forget_stages(folder: RunFolder, step: int, batch: int) -> None:
    """Removes what a batch has no need of that is complete."""
    path = stages_path(step, batch)
    if folder.files.exists(path):
        folder.files.remove(path)
