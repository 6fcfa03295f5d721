"""Where things are in a run folder, by step and batch."""

from __future__ import annotations

from pathlib import PurePosixPath

from batchq.plan import OutputSpec
from batchq.store.names import safe_name


def done_path(step: int) -> str:
    """Says that a step is collated, and holds its counts."""
    return f"state/{step:02d}_done.json"


def batches_path(step: int) -> str:
    """The folder of a step's collated batches."""
    return f"state/{step:02d}_batches"


def batch_path(step: int, number: int) -> str:
    """The record of a collated batch."""
    return f"{batches_path(step)}/{number:06d}.jsonl"


def parked_folder(step: int) -> str:
    """The folder of what batches had that were cut off."""
    return f"state/{step:02d}_parked"


def parked_path(step: int, number: int) -> str:
    """What a batch had that was cut off."""
    return f"{parked_folder(step)}/{number:06d}.jsonl"


def stages_path(step: int, number: int) -> str:
    """What the items of a batch gave half way that was cut off."""
    return f"state/{step:02d}_stages/{number:06d}.json"


def carried_path(step: int) -> str:
    """The outcomes of a step that waits to be laid out anew."""
    return f"state/{step:02d}_carried.jsonl"


def earlier_folder(step: int) -> str:
    """The folder of what was tried of items before a retry."""
    return f"state/{step:02d}_earlier"


def uploads_folder(step: int) -> str:
    """The folder of what is known of a step's uploads."""
    return f"state/{step:02d}_uploads"


def collated_path(step: int, output: OutputSpec) -> str:
    """A step's collated file."""
    return f"collated/{step:02d}_{safe_name(output.file)}"


def suffix_of(output: OutputSpec) -> str:
    """What tells the format of a collated file, such as `.json`."""
    return PurePosixPath(output.file).suffix.lower()
