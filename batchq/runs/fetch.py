"""Fetches inputs from an object store, to files that planning reads like any other.

A copy has the name of its content, so a run reads what it was planned with, whatever becomes of the
object.
"""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

from batchq.errors import PlanError
from batchq.store.files import open_files

LATEST = "latest"
_BLOCK_BYTES = 1 << 20


def pin_url(url: str) -> str:
    """The URL with each `latest` that is a pointer replaced by the version it names."""
    scheme, _, rest = url.partition("://")
    parts = rest.split("/")
    for at, part in enumerate(parts):
        if part != LATEST or not at or at == len(parts) - 1:
            continue
        home = open_files(f"{scheme}://{'/'.join(parts[:at])}")
        if version := home.pointed(LATEST):
            parts[at] = version
    return f"{scheme}://{'/'.join(parts)}"


def fetch(url: str, home: Path) -> Path:
    """Copies an object into `home`; returns the copy.

    Raises PlanError if there is no such object, StoreError if the store cannot be read.
    """
    parent, _, name = url.rpartition("/")
    files = open_files(parent)
    if files.size(name) is None:
        raise PlanError(f"{url}: no such object")
    inputs = home / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    temp = inputs / f".{uuid.uuid4().hex}"
    digest = hashlib.sha256()
    try:
        with files.reader(name) as source, temp.open("xb") as copy:
            while block := source.read(_BLOCK_BYTES):
                digest.update(block)
                copy.write(block)
        place = inputs / digest.hexdigest()[:16] / name
        place.parent.mkdir(exist_ok=True)
        temp.replace(place)
    finally:
        temp.unlink(missing_ok=True)
    return place
