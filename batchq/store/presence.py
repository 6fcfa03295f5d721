"""Opens a version of which all is there that a reader needs."""

from __future__ import annotations

from collections.abc import Sequence

from batchq.errors import RunNotFound, StoreError
from batchq.store.folder import RunFolder

PLAN = "plan.json"
METADATA = "metadata.json"


def open_whole(name: str, url: str, files: Sequence[str] = (PLAN, METADATA)) -> RunFolder:
    """Opens the folder of a version that is called `name`.

    Raises RunNotFound if it is gone, StoreError if one of its `files` is.
    """
    folder = RunFolder.open(url)
    if not folder.files.exists(""):
        raise RunNotFound(
            f"{name} was in {url}, which is gone: restore it, or choose another version"
        )
    for file in files:
        if not folder.files.exists(file):
            raise StoreError(
                f"{name}: {url} has no {file}: a part of the version was deleted; restore it, or "
                "choose another version"
            )
    return folder
