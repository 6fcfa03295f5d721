"""Changes what people call a version, in its metadata."""

from __future__ import annotations

import json

from batchq.errors import StoreError
from batchq.store.folder import RunFolder
from batchq.store.rows import to_json


def relabel(folder: RunFolder, label: str, note: str | None) -> None:
    """Writes a version's label, and its note if there is one; all other keys stay as they are.

    Keys that people added to `metadata.json` stay too. Raises StoreError if it is no metadata.
    """
    folder.read_metadata()  # refuses what is broken
    try:
        content = json.loads(folder.files.read("metadata.json"))
    except ValueError as error:
        raise StoreError(f"{folder.files.full('metadata.json')}: broken: {error}") from error
    content["pipeline_status"] = label
    if note is not None:
        content["notes"] = note
    folder.files.write("metadata.json", to_json(content, indent=2) + b"\n", durable=True)
