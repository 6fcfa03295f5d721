"""Finds the version that a name means, and opens it for reading."""

from __future__ import annotations

from datetime import datetime

from batchq.cli.output import local_time
from batchq.records import RunRecord
from batchq.runs.life import find_run
from batchq.runs.versions import Version, open_version
from batchq.services import Services


def find_version(name: str, services: Services) -> tuple[RunRecord, Version]:
    """Finds a run by the catalog and opens its folder; RunNotFound has the nearest names."""
    record = find_run(name, services)
    return record, open_version(record.pipeline, record.version, record.folder)


def time_text(iso: str) -> str:
    """A UTC time on this machine's clock; what is no time, as it is."""
    try:
        datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return local_time(iso)
