"""One version's folder: the truth about a run.

    items/<id>/01_output.json   prompts/01_prompt_<id>.md   collated/01_<file>   01_errors.json
    packed/                     items and prompts of a step with very many (`itemfiles`)
    metadata.json   plan.json   manifest.lock.yaml
    state/                      what batchq itself needs to go on:
      01_items.jsonl, 01_offsets.bin    the items of step 1, frozen, and where each begins
      01_batches/000000.jsonl           a collated batch, an outcome a line: never written twice
      01_parked/000000.jsonl            what there is of a batch that a pause cut off
      01_earlier/000000.jsonl           what was tried of items before a retry ran them again
      rerun.json                        which version this one builds on, and what it redoes
      01_done.json, log.jsonl, tmp/

A batch's record and the metadata are on the disk when a call returns (fsync), since nothing else
could bring them back. Item files and prompts are not: the record holds the outputs too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from pydantic import ValidationError

from batchq.errors import StoreError
from batchq.outcome import Json, Outcome, Summary
from batchq.plan import Item, OutputSpec, Plan, Rerun, decode, encode
from batchq.records import RunRecord
from batchq.store import basis, earlier, frozen
from batchq.store.files import Files, open_files
from batchq.store.itemfiles import write_items
from batchq.store.layout import (
    batch_path,
    batches_path,
    carried_path,
    collated_path,
    done_path,
    parked_folder,
    parked_path,
    suffix_of,
)
from batchq.store.lines import Line, read_lines, to_line
from batchq.store.metadata import Metadata, describe
from batchq.store.rows import (
    Rows,
    error_row,
    to_json,
    write_document,
    write_rows,
)

T = TypeVar("T")

_BATCH_FILE = re.compile(r"(\d{6,})\.jsonl")
_RERUN_FILE = "state/rerun.json"
_DONE_FILE = re.compile(r"(\d{2,})_done\.json")


@dataclass(frozen=True, slots=True)
class CollateResult:
    """What a collated file holds, and what it leaves out."""

    written: int
    dropped_duplicates: int
    errors: int


class RunFolder:
    """Reads and writes one version's folder; implements `ports.RunFolder`."""

    def __init__(self, files: Files) -> None:
        self.files = files.sealed()
        self._plan: Plan | None = None
        self._rerun: Rerun | None = None

    @classmethod
    def open(cls, url: str) -> RunFolder:
        """Opens a folder by its path or URL, and clears what writers that died left in it."""
        files = open_files(url)
        files.sweep()
        return cls(files)

    @property
    def url(self) -> str:
        """What `open` takes: an absolute path or a URL."""
        return self.files.url

    @property
    def version(self) -> str:
        """The folder's name, such as `v0`."""
        return self.files.root.rpartition("/")[2]

    def discard(self) -> None:
        """Removes the folder with all that is in it: for a submit that failed half way."""
        self.files.remove_all()

    def write_plan(self, plan: Plan) -> None:
        """Writes what the run will do."""
        text = to_json(json.loads(encode(plan)), indent=2)
        self.files.write("plan.json", text + b"\n", durable=True)

    def read_plan(self) -> Plan:
        """Reads what the run does."""
        if self._plan is None:
            self._plan = self._decode(Plan, "plan.json", "restore it, or submit a new version")
        return self._plan

    def write_lock(self, text: str) -> None:
        """Writes the manifest as it was resolved."""
        self.files.write("manifest.lock.yaml", text.encode(), durable=True)

    def read_lock(self) -> str:
        """The resolved manifest of the run, as YAML."""
        return self.files.read("manifest.lock.yaml").decode()

    def write_metadata(
        self, record: RunRecord, plan: Plan, summaries: Mapping[int, Summary], reason: str = ""
    ) -> None:
        """Writes what people read about the run; `summaries` is by step number."""
        content = asdict(describe(record, plan, summaries, reason))
        self.files.write("metadata.json", to_json(content, indent=2) + b"\n", durable=True)

    def read_metadata(self) -> Metadata:
        """Reads what people read about the run; keys that they added are passed over."""
        return self._decode(Metadata, "metadata.json", "mend the JSON, or restore the file")

    def freeze_items(self, step: int, items: Iterator[Item]) -> int:
        """Writes a step's items down, once; returns how many there are."""
        return frozen.freeze(self.files, step, items)

    def item_count(self, step: int) -> int | None:
        """How many items a step has; None while they are not frozen."""
        return frozen.count(self.files, step)

    def batch(self, step: int, number: int, size: int) -> Sequence[Item]:
        """Reads the items of one batch, without reading those before it."""
        return frozen.read_batch(self.files, step, number, size)

    def write_batch(
        self, step: int, number: int, outcomes: Sequence[Outcome], output: OutputSpec
    ) -> bool:
        """Writes item files, prompts, then the batch's record; False if the record was there.

        The record leaves prompts out: they are in files of their own, and often the larger part.
        """
        is_first = not self.has_batch(step, number)
        if is_first:
            write_items(self.files, step, number, outcomes, output)
            is_first = self.files.create(batch_path(step, number), _record(outcomes))
        self.files.remove(parked_path(step, number))  # also for a writer that died before this
        return is_first

    def has_batch(self, step: int, number: int) -> bool:
        """Whether a batch is collated."""
        return self.files.exists(batch_path(step, number))

    def collated_batches(self, step: int) -> set[int]:
        """The numbers of the batches whose record is there."""
        return self._numbers(batches_path(step))

    def parked_batches(self, step: int) -> set[int]:
        """The numbers of the batches that were cut off."""
        return self._numbers(parked_folder(step))

    def park_batch(
        self, step: int, number: int, outcomes: Sequence[Outcome], output: OutputSpec
    ) -> None:
        """Keeps what there is of a batch that was cut off: its item files, and a resume's start."""
        if not self.has_batch(step, number):
            write_items(self.files, step, number, outcomes, output)
            # whole outcomes: their prompts have no file yet
            self.files.write(parked_path(step, number), _lines(outcomes), durable=True)

    def parked(self, step: int, number: int) -> list[Outcome]:
        """What was kept of a batch that was cut off; empty if nothing was."""
        path = parked_path(step, number)
        return self.read_record(path) if self.files.exists(path) else []

    def read_batch(self, step: int, number: int) -> list[Outcome]:
        """Reads back the outcomes of one collated batch, in input order, without prompts."""
        return self.read_record(batch_path(step, number))

    def outcomes(self, step: int) -> Iterator[Outcome]:
        """Reads back all outcomes of a step, batch by batch, in input order.

        Of a batch that was cut off, those that there are.
        """
        return (line.outcome for line in self.lines(step))

    def lines(self, step: int, *, only_failed: bool = False) -> Iterator[Line]:
        """What `outcomes` reads back, not decoded."""
        collated = self.collated_batches(step)
        paths = [
            (batch_path if number in collated else parked_path)(step, number)
            for number in sorted(collated | self.parked_batches(step))
        ]
        if not paths and self.files.exists(carried_path(step)):
            paths = [carried_path(step)]  # a retry laid nothing out yet
        for path, file in self.files.readers(paths):
            yield from read_lines(self.files.full(path), file, only_failed=only_failed)

    def merged(self, step: int) -> Iterator[Outcome]:
        """All outcomes of a step in input order; a rerun's stand in for those they replace."""
        return (line.outcome for line in self.merged_lines(step))

    def merged_lines(self, step: int) -> Iterator[Line]:
        """What `merged` gives, not decoded."""
        return basis.merged(self, lambda version: version.lines(step), step)

    def failed_lines(self, step: int) -> Iterator[Line]:
        """Those of `merged_lines` that failed, in a third of the time."""
        return basis.merged(self, lambda version: version.lines(step, only_failed=True), step)

    def all_items(self, step: int) -> Iterator[Item]:
        """The items of a step with an input of its own, also those that a rerun takes over."""
        return basis.all_items(self, step)

    def base(self) -> RunFolder | None:
        """The version that this one builds on; None for one that stands alone."""
        rerun = self.rerun()
        return None if rerun is None else basis.base_of(self, rerun)

    def write_rerun(self, rerun: Rerun) -> None:
        """Says which version this one builds on, and what it does again."""
        if rerun.folder == basis.beside(self, rerun.base):
            rerun = replace(rerun, folder=f"{basis.BESIDE}{rerun.base}")
        self.files.write(_RERUN_FILE, encode(rerun), durable=True)

    def rerun(self) -> Rerun | None:
        """Which version this one builds on; None for one that stands alone."""
        if self._rerun is None and self.files.exists(_RERUN_FILE):
            self._rerun = self._decode(
                Rerun, _RERUN_FILE, "restore it, or rerun the version before"
            )
        return self._rerun

    def summary(self, step: int) -> Summary:
        """Counts the outcomes of a step that are in the folder; at once if the step is done.

        What was spent on items that a retry runs again is in it.
        """
        path = done_path(step)
        if self.files.exists(path):
            return self._decode(Summary, path, "remove it and resume the run")
        return earlier.count(self, step)

    def collate(self, step: int, output: OutputSpec) -> CollateResult:
        """Merges a step's outputs into its collated file, in input order, one at a time."""
        rows = Rows(lambda: self.merged_lines(step), output)
        with self.files.writer(collated_path(step, output), durable=True) as file:
            write_rows(file, suffix_of(output), rows)
        return CollateResult(rows.written, rows.dropped, rows.errors)

    def write_collated(self, step: int, output: OutputSpec, content: Json) -> None:
        """Writes what a collate function gave: the rows of a list, or one document."""
        write = write_rows if isinstance(content, list) else write_document
        with self.files.writer(collated_path(step, output), durable=True) as file:
            write(file, suffix_of(output), content)

    def read_collated(self, step: int) -> Iterator[Json]:
        """Reads a step's collated output back, row by row; a document is one row."""
        return (row for _, row in self.collated_rows(step))

    def collated_rows(self, step: int) -> Iterator[tuple[int, Json]]:
        """The rows of a collated output, each with the index that the next step's item gets.

        That is the index of the item it came from; where one call made them all, their position.
        What a collate function gave is read from its file, which CSV would turn into text: a step
        whose output feeds another one wants `.json`, `.jsonl` or `.yaml` there.
        """
        plan = self.read_plan().step(step)
        if plan.output.collate:
            content = self._load(collated_path(step, plan.output), suffix_of(plan.output))
        elif plan.input.whole:
            content = next((one.output for one in self.merged_lines(step) if one.is_ok), [])
        else:
            return Rows(lambda: self.merged_lines(step), plan.output).indexed()
        return enumerate(content if isinstance(content, list) else [content])

    def write_errors(self, step: int, total: int | None = None) -> int:
        """Writes the step's errors file if an item failed, else removes it; returns how many.

        `total` is that number where it is known, which saves a look at all outcomes.
        """
        path = f"{step:02d}_errors.json"
        if total is None:
            total = sum(1 for _ in self.failed_lines(step))
        if not total:
            self.files.remove(path)
            return 0
        with self.files.writer(path, durable=True) as file:
            rows = (error_row(step, one.outcome) for one in self.failed_lines(step))
            write_rows(file, ".json", rows)
        return total

    def mark_done(self, step: int, counts: Summary | None = None) -> None:
        """Says that a step is collated and its errors are written; keeps what it came to."""
        counts = counts or self.summary(step)
        self.files.write(done_path(step), encode(counts), durable=True)

    def unmark_done(self, step: int) -> None:
        """Takes back that a step is done."""
        self.files.remove(done_path(step))

    def reopen_batch(self, step: int, number: int, kept: Sequence[Outcome]) -> None:
        """Turns a collated batch into one that was cut off, with the outcomes that are kept."""
        self.files.write(parked_path(step, number), _lines(kept), durable=True)
        self.files.remove(batch_path(step, number))

    def forget_items(self, step: int) -> None:
        """Removes a step's frozen items and batches; its items are frozen again when it starts."""
        frozen.forget(self.files, step)
        for number in self.parked_batches(step):
            self.files.remove(parked_path(step, number))
        for number in self.collated_batches(step):
            self.files.remove(batch_path(step, number))

    def done_steps(self) -> set[int]:
        """The numbers of the steps that are done."""
        names = self.files.names("state")
        return {int(match[1]) for name in names if (match := _DONE_FILE.fullmatch(name))}

    def append_log(self, event: str, *, at: float, level: str = "info", **fields: Json) -> None:
        """Adds an event to the run's log; `at` is seconds since the epoch."""
        line = {"ts": at, "level": level, "event": event, **fields}
        self.files.append("state/log", to_json(line) + b"\n")

    def read_log(self) -> Iterator[Mapping[str, Any]]:
        """Reads the events of the run's log; a line that a crash cut off is passed over."""
        parts = [f"state/log/{name}" for name in self.files.names("state/log")]
        whole = "state/log.jsonl"
        paths = [whole, *parts] if self.files.exists(whole) else parts
        for _, file in self.files.readers(paths):
            for line in file:
                with suppress(ValueError):
                    yield json.loads(line)

    def _numbers(self, path: str) -> set[int]:
        names = self.files.names(path)
        return {int(match[1]) for name in names if (match := _BATCH_FILE.fullmatch(name))}

    def read_record(self, path: str) -> list[Outcome]:
        """Reads a file of outcomes, one a line."""
        with self.files.reader(path) as file:
            return [line.outcome for line in read_lines(self.files.full(path), file)]

    def _decode(self, kind: type[T], path: str, advice: str) -> T:
        try:
            return decode(kind, self.files.read(path))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise StoreError(
                f"{self.files.full(path)}: broken: {place + ': ' if place else ''}{first['msg']}. "
                f"What to do: {advice}"
            ) from error

    def _load(self, path: str, suffix: str) -> Json:
        text = self.files.read(path)
        if suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines()]
        if suffix == ".json":
            return json.loads(text)
        from ruamel.yaml import YAML  # takes 50 ms that other formats do not need

        return YAML(typ="safe", pure=True).load(text)


def _record(outcomes: Sequence[Outcome]) -> bytes:
    ordered = sorted(outcomes, key=lambda one: one.index)
    return _lines([replace(one, prompts=()) if one.prompts else one for one in ordered])


def _lines(outcomes: Sequence[Outcome]) -> bytes:
    return b"".join(map(to_line, outcomes))
