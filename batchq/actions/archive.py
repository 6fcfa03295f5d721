"""A version as one file, with all that it builds on: `batchq pack` and `unpack`.

A gzipped tar: `batchq.json`, which says what is in it, then the files of each version under
`PIPELINE/vN/`, the version that the others build on first and `plan.json` of each last.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

from pydantic import TypeAdapter

from batchq.errors import UsageError
from batchq.plan import Plan, decode
from batchq.progress import RunState
from batchq.runs.versions import Version
from batchq.version import __version__

if TYPE_CHECKING:
    from batchq.store import Outputs, RunFolder

FORM = 1
_HEADER = "batchq.json"
_HEADER_BYTES = 1 << 20
_PLAN = "plan.json"
_LEFT_OUT = ("state/tmp/", "state/claim")
_VERSION = re.compile(r"v\d{1,9}")


@dataclass(frozen=True, slots=True)
class Packed:
    """What an archive holds: run ids by version, oldest version first."""

    pipeline: str
    runs: dict[str, str]
    form: int = FORM
    made_by: str = __version__


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The folders that an archive gave, and the names of versions that were there before."""

    pipeline: str
    folders: list[RunFolder] = field(default_factory=list)
    known: list[str] = field(default_factory=list)


def pack(version: Version, file: IO[bytes]) -> Packed:
    """Writes a version and those it builds on.

    Raises UsageError if one of them is under way, StoreError if a part of it is gone.
    """
    chain = version.chain()[::-1]
    told = [one.folder.read_metadata() for one in chain]
    for one, about in zip(chain, told, strict=True):
        if about.status in (RunState.RUNNING, RunState.PENDING):
            raise UsageError(f"{one.name} is {about.status}: pause it first, or wait for its end")
    header = Packed(
        version.pipeline, {one.version: about.run for one, about in zip(chain, told, strict=True)}
    )
    with tarfile.open(fileobj=file, mode="w|gz") as tar:
        _add(tar, _HEADER, json.dumps(asdict(header)).encode())
        for one in chain:
            files = one.folder.files
            for path in files.walk():
                if path == _PLAN or path.startswith(_LEFT_OUT):
                    continue
                entry = tarfile.TarInfo(f"{version.pipeline}/{one.version}/{path}")
                entry.size = files.size(path) or 0
                with files.reader(path) as content:
                    tar.addfile(entry, content)
            _add(tar, f"{version.pipeline}/{one.version}/{_PLAN}", files.read(_PLAN))
    return header


def unpack(file: IO[bytes], outputs: Outputs) -> Unpacked:
    """Writes the versions of an archive under their own numbers; one that is there stays as it is.

    What was unpacked is removed again if it does not come to its end.

    Raises:
        UsageError: this is no archive, it is cut off, a path in it leads out of its version, or
            another run has the number of one of its versions.
    """
    with (
        _explained(file),
        gzip.GzipFile(fileobj=file) as whole_file,
        tarfile.open(fileobj=whole_file, mode="r|") as tar,
    ):
        header = _read_header(tar)
        known = [one for one in header.runs if _is_known(header, one, outputs)]
        made: dict[str, RunFolder] = {}
        finished: list[RunFolder] = []
        try:
            for version in header.runs:
                if version not in known:
                    made[version] = outputs.claim(header.pipeline, version)
            while (entry := tar.next()) is not None:  # a loop over it begins at the header again
                version, path = _place(entry, header)
                content = tar.extractfile(entry)
                assert content is not None  # it is a file
                if version not in made:
                    continue
                if path == _PLAN:
                    plan = decode(Plan, content.read())
                    made[version].write_plan(replace(plan, output_dir=outputs.url))
                    finished.append(made[version])
                    continue
                with made[version].files.writer(path) as whole:
                    while block := content.read(1 << 20):
                        whole.write(block)
            while whole_file.read(1 << 20):  # to its end, where the checksum is
                continue
            if len(finished) < len(made):
                raise UsageError("it ends before its versions do: pack them anew")
        except BaseException:
            for folder in made.values():
                folder.discard()
            raise
    return Unpacked(header.pipeline, finished, known)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _read_header(tar: tarfile.TarFile) -> Packed:
    first = tar.next()
    content = tar.extractfile(first) if first is not None and first.name == _HEADER else None
    if content is None or first is None or first.size > _HEADER_BYTES:
        raise UsageError("this is no archive of batchq: `batchq pack RUN` makes one")
    data = content.read()
    told = json.loads(data)
    form = told.get("form") if isinstance(told, dict) else None
    if form != FORM:
        raise UsageError(f"this is an archive of form {form}, and this batchq reads form {FORM}")
    header: Packed = TypeAdapter(Packed).validate_json(data)
    if not header.pipeline or not all(map(_VERSION.fullmatch, header.runs)):
        raise UsageError("it names no pipeline, or versions that are none")
    return header


def _is_known(header: Packed, version: str, outputs: Outputs) -> bool:
    """Whether this very run is there already."""
    if not outputs.exists(header.pipeline, version):
        return False
    name = f"{outputs.url}/{header.pipeline}/{version}"
    if version not in outputs.versions(header.pipeline):
        raise UsageError(f"{name} is there, without a plan: remove it, or choose another folder")
    there = outputs.open_version(header.pipeline, version).read_metadata().run
    if there != header.runs[version]:
        raise UsageError(f"{name} is another run ({there}): choose another folder with --into")
    return True


def _place(entry: tarfile.TarInfo, header: Packed) -> tuple[str, str]:
    """Which version a file belongs to, and where it is in it."""
    parts = PurePosixPath(entry.name).parts
    is_plain = entry.isreg() and "/".join(parts) == entry.name and ".." not in parts
    at_home = len(parts) > 2 and parts[0] == header.pipeline and parts[1] in header.runs
    if not (is_plain and at_home) or "\\" in entry.name or "\0" in entry.name:
        raise UsageError(f"{entry.name!r} does not belong into a version: nothing is unpacked")
    return parts[1], "/".join(parts[2:])


@contextmanager
def _explained(file: IO[bytes]) -> Iterator[None]:
    """Says what is wrong with an archive, and which it is."""
    name = getattr(file, "name", "the archive")
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError) as error:
        raise UsageError(f"{name}: this is no whole archive of batchq ({error})") from error
