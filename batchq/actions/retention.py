"""Which versions may go, and how they go: `batchq gc`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchq.progress import RunState
from batchq.records import RunRecord

if TYPE_CHECKING:
    from batchq.services import Services


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a version: `kept_for` says why it stays, and is empty if it may go."""

    record: RunRecord
    kept_for: str = ""
    is_gone: bool = False
    """Its folder is not there any more: only the catalog knows it."""

    @property
    def name(self) -> str:
        """The version as people name it."""
        return f"{self.record.pipeline}@{self.record.version}"


def judge(
    records: Iterable[RunRecord],
    *,
    keep: int,
    keep_labels: Collection[str] = (),
    gone: Collection[str] = (),
) -> list[Verdict]:
    """Decides for each version of one pipeline, newest first: pure.

    The newest `keep` stay, and the newest complete one, which `latest` names; so do labelled ones,
    those that are not over, and whatever one of these was built on: items that a rerun took over
    have their files there. `gone` are run ids whose folders are missing.
    """
    newest_first = sorted(records, key=lambda one: int(one.version[1:]), reverse=True)
    there = [one for one in newest_first if one.run not in gone]
    latest = next((one.run for one in there if one.state is RunState.COMPLETED), "")
    newest = {one.run for one in there[:keep]}
    builders: dict[str, str] = {}
    verdicts = []
    for one in newest_first:
        if one.run in gone:
            verdicts.append(Verdict(one, is_gone=True))
            continue
        reason = ""
        if not one.state.is_over or one.state is RunState.PAUSED:
            reason = f"it is {one.state.value}"
        elif one.status in keep_labels:
            reason = f"its label is {one.status}"
        elif one.run == latest:
            reason = "it is the latest"
        elif one.run in newest:
            reason = f"it is one of the newest {keep}"
        elif one.version in builders:
            reason = f"{builders[one.version]} builds on it"
        if reason and one.base_version:
            builders.setdefault(one.base_version, one.version)
        verdicts.append(Verdict(one, reason))
    return verdicts


def review(
    pipelines: Collection[str], services: Services, *, keep: int, keep_labels: Collection[str]
) -> Iterator[Verdict]:
    """Decides for all versions that the catalog knows of these pipelines, of all if none is named.

    Raises RunNotFound for a pipeline that has none.
    """
    from batchq.runs.life import find_run

    known = services.listing.pipelines()
    for name in pipelines:
        if name not in known:
            find_run(name, services)  # says what there is
    for pipeline in known:
        if pipelines and pipeline not in pipelines:
            continue
        records = services.catalog.runs(pipeline)
        gone = {one.run for one in records if not _is_there(one)}
        yield from judge(records, keep=keep, keep_labels=keep_labels, gone=gone)


def size_of(verdict: Verdict) -> int:
    """What a version's folder holds, in bytes."""
    from batchq.runs.life import open_folder

    return 0 if verdict.is_gone else open_folder(verdict.record.folder).files.total_size()


def remove(verdict: Verdict, services: Services) -> None:
    """Removes a version: its folder, what its private Redis kept, its rows of the catalog.

    In this order: whatever ends it half way, the next one finds what is left by the catalog.
    """
    from batchq.embedded.stack import forget_data
    from batchq.runs.life import open_folder

    assert not verdict.kept_for
    if not verdict.is_gone:
        open_folder(verdict.record.folder).discard()
    forget_data(services.settings.home, verdict.record.run)
    services.catalog.remove_run(verdict.record.run)


def _is_there(record: RunRecord) -> bool:
    from batchq.runs.life import open_folder

    return open_folder(record.folder).files.exists("")
