"""Pipelines and their versions: `outputs/<pipeline>/v0`, `v1`, ..., `latest`."""

from __future__ import annotations

import difflib
import os
import re
from contextlib import suppress

from batchq.errors import RunExists, RunNotFound, StoreError
from batchq.progress import RunState
from batchq.store.files import Files, open_files
from batchq.store.folder import RunFolder
from batchq.store.names import safe_name

LATEST = "latest"
_VERSION = re.compile(r"v(\d+)")
_CLAIMS = 1000  # submits that may come first, all at the same moment


class Outputs:
    """The folder that pipelines keep their versions in, by a path or an fsspec URL.

    A relative path is taken from `base_dir`.
    """

    def __init__(self, output_dir: str, base_dir: str = "") -> None:
        is_url = "://" in output_dir
        self._files = open_files(output_dir if is_url else os.path.join(base_dir, output_dir))  # noqa: PTH118 (a URL is no Path)

    @property
    def url(self) -> str:
        """The folder's absolute path or URL."""
        return self._files.url

    def create_version(self, pipeline: str) -> RunFolder:
        """Makes the next version's folder; of two callers at once each gets its own.

        A version that was claimed and never planned counts for the next number, and for nothing
        else: `versions` and `latest` do not know it.
        """
        home = self._home(pipeline)
        number = max(self._numbers(home), default=-1) + 1
        for claimed in range(number, number + _CLAIMS):
            if home.claim_folder(f"v{claimed}"):
                return RunFolder(home.at(f"v{claimed}"))
        raise RunExists(f"{home.url}: v{number} and the next {_CLAIMS} were taken; try again")

    def claim(self, pipeline: str, version: str) -> RunFolder:
        """Makes the folder of a version of this number; raises RunExists if there is one."""
        home = self._home(pipeline)
        if not home.claim_folder(version):
            raise RunExists(f"{home.full(version)} is there already")
        return RunFolder(home.at(version))

    def open_version(self, pipeline: str, version: str = LATEST) -> RunFolder:
        """Opens a version by its name; raises RunNotFound with the names that exist."""
        home = self._home(pipeline)
        found = self.latest(pipeline) if version == LATEST else version
        if not (found and _VERSION.fullmatch(found) and home.exists(f"{found}/plan.json")):
            raise RunNotFound(self._not_found(pipeline, version, self.versions(pipeline)))
        folder = RunFolder(home.at(found))
        folder.files.sweep()
        return folder

    def pipelines(self) -> list[str]:
        """The names of the pipelines that have a version."""
        return [name for name in self._files.names() if self._numbers(self._files.at(name))]

    def versions(self, pipeline: str) -> list[str]:
        """The versions of a pipeline that have a plan, oldest first."""
        home = self._home(pipeline)
        plans = [f"v{number}/plan.json" for number in sorted(self._numbers(home))]
        return [path.partition("/")[0] for path in home.existing(plans)]

    def latest(self, pipeline: str) -> str | None:
        """The version that `latest` names; None if there is none, or it is gone."""
        home = self._home(pipeline)
        version = home.pointed(LATEST)
        is_known = version and _VERSION.fullmatch(version) and home.exists(f"{version}/plan.json")
        return version if is_known else None

    def pointer(self, pipeline: str) -> str | None:
        """What `latest` names, be it there or not; None if there is no `latest`."""
        return self._home(pipeline).pointed(LATEST)

    def exists(self, pipeline: str, version: str) -> bool:
        """Whether there is a folder of this version, be it whole or not."""
        return self._home(pipeline).exists(version)

    def point_latest(self, pipeline: str, version: str) -> None:
        """Makes `latest` name this version, unless it names a newer one.

        So a long run that ends after a newer short one does not take its place.
        """
        home = self._home(pipeline)
        current = self.latest(pipeline)
        if current and int(current[1:]) > int(version[1:]):
            return
        newest: str | None = version
        while newest:  # another one may have ended since the look at `latest`
            home.point(LATEST, newest)
            newest = self._complete_after(home, newest)

    def _complete_after(self, home: Files, version: str) -> str | None:
        """The newest complete version of those that are newer than this one."""
        newer = [number for number in self._numbers(home) if number > int(version[1:])]
        for number in sorted(newer, reverse=True):
            with suppress(StoreError):  # not there yet, or broken by hand
                folder = RunFolder(home.at(f"v{number}"))
                if folder.read_metadata().status == RunState.COMPLETED:
                    return folder.version
        return None

    def _home(self, pipeline: str) -> Files:
        return self._files.at(safe_name(pipeline))

    def _numbers(self, home: Files) -> list[int]:
        return [int(match[1]) for name in home.names() if (match := _VERSION.fullmatch(name))]

    def _not_found(self, pipeline: str, version: str, known: list[str]) -> str:
        if known:
            return f"{pipeline} has no {version}; there are {', '.join(known)}"
        near = difflib.get_close_matches(pipeline, self.pipelines(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"it has no versions in {self.url}"
        return f"no pipeline {pipeline}: {hint}"
