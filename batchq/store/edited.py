"""Finds results that somebody changed by hand; nothing is made from these, so people are told."""

from __future__ import annotations

from pathlib import Path

from batchq.store.disk import DiskFiles
from batchq.store.folder import RunFolder
from batchq.store.layout import collated_path, done_path


def edited_files(folder: RunFolder) -> list[str]:
    """The collated files of a version that are newer than the end of their step.

    Only on a disk: the times of an object store are whole seconds of another clock.
    """
    if not isinstance(folder.files, DiskFiles):
        return []
    found = []
    for step in folder.read_plan().steps:
        collated, done = (
            Path(folder.files.full(path))
            for path in (
                collated_path(step.spec.number, step.output),
                done_path(step.spec.number),
            )
        )
        both = collated.exists() and done.exists()
        if both and collated.stat().st_mtime_ns > done.stat().st_mtime_ns:
            found.append(str(collated))
    return found


def warnings_of(folder: RunFolder) -> list[str]:
    """Says of each file that was changed by hand what that means."""
    return [
        f"{path} was changed after the run wrote it: versions are compared and rerun by what the "
        "run recorded, so the change is left out; keep it in a file of your own"
        for path in edited_files(folder)
    ]
