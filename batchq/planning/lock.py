"""Writes down what a run was made from: the resolved manifest, hashes, versions, git commit."""

from __future__ import annotations

import io
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from batchq.manifest.models import Manifest
from batchq.plan import Plan
from batchq.version import __version__

PACKAGES = ("celery", "kombu", "redis", "requests", "pydantic", "jinja2", "jsonschema",
            "json-repair", "ruamel.yaml", "SQLAlchemy", "fsspec")  # fmt: skip
_GIT_TIMEOUT_S = 5


def manifest_lock(manifest: Manifest, plan: Plan) -> str:
    """The text of manifest.lock.yaml: enough to see later what was run, and nothing secret."""
    lock: dict[str, Any] = {
        "manifest_path": plan.manifest_path,
        "params": dict(plan.params),
        "command_line": dict(manifest.origin.commands),
        "hashes": dict(plan.hashes),
        "pinned": [
            {
                "step": step.spec.name,
                "written": step.input.written,
                "input": step.input.source,
                "sha256": plan.hashes[f"input:{step.input.source}"],
            }
            for step in plan.steps
            if step.input.written
        ],
        "versions": {
            "batchq": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            **_package_versions(),
        },
        "git": git_state(Path(plan.base_dir)),
        "manifest": manifest.model_dump(mode="json", exclude_none=True, exclude={"params"}),
    }
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # typed as None
    text = io.StringIO()
    yaml.dump(lock, text)
    return text.getvalue()


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit that a folder is at and whether files in it differ; None outside of git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 (fixed arguments)
            ["git", "-C", str(folder), *arguments],  # noqa: S607 (git as the user has it)
            capture_output=True,
            text=True,
            check=False,
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
