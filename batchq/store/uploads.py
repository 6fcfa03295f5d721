"""The uploads of a step in its run folder: what was meant, what was made, what came of it.

    state/01_uploads/000000.intent.json    its lines, before it is made at the provider
                     000000.created.json   the provider's id for it, as soon as there is one
                     000000.cancel.json    since when it is to be cancelled
                     000000.answers.jsonl  its answers, a line an item, by index
                     000000.places.json    where the answer of each index begins
                     000000.ended.json     what came of it: written last
                     begun-0.json          since when, and by when, of a round
                     online-0.json         since when the rest of a round goes online, and why
                     round.json, most.json, strangers.json

An intent without a record may be one that a killed process made: who finds it asks the provider.
A retry begins a new round: uploads of the rounds before cover nothing, and their answers are taken
where an item has not used them.
"""

from __future__ import annotations

import bisect
import json
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal, TypeVar

from pydantic import ValidationError

from batchq.engine.delivered import Delivered
from batchq.errors import StoreError
from batchq.outcome import Usage
from batchq.plan import decode, encode
from batchq.ranges import is_within
from batchq.store import earlier
from batchq.store.folder import RunFolder
from batchq.store.layout import uploads_folder

T = TypeVar("T")

_MOST_PLACES = 4
_known_places: dict[str, tuple[list[int], list[int]]] = {}
"""By file: they are not written again, and those of 50,000 lines take 20 ms to read."""

_INTENT = re.compile(r"(\d{6})\.intent\.json")


@dataclass(frozen=True, slots=True)
class Intent:
    """An upload that is to be made, of the items of `indexes`: ranges up to their second number.

    It covers the batches from `first` to `last`, of the last one only a part if it `cuts` it.
    `need` is what its lines are estimated to use. `at` is when it was meant first, `tried_at` last.
    """

    number: int
    tag: str
    round: int
    first: int
    last: int
    cuts: bool
    indexes: tuple[tuple[int, int], ...]
    lines: int
    need: Usage
    at: float
    tried_at: float

    def has(self, index: int) -> bool:
        """Whether the item of this index has a line in it."""
        return is_within(index, self.indexes)

    def all_indexes(self) -> Iterator[int]:
        """The indexes of its items, rising."""
        for start, end in self.indexes:
            yield from range(start, end)


@dataclass(frozen=True, slots=True)
class Created:
    """What the provider calls an upload, and when it was made by our clock.

    One that `is_found` was looked for after somebody had died, and may prove to be another's.
    """

    id: str
    at: float
    is_found: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of an upload. A rejected one was refused whole, and covers nothing.

    `cancelled` lines were not worked at, and are as if they had not been sent; `missing` ones have
    no line in the answers; `unknown` and `repeated` lines were passed over.
    """

    state: Literal["ended", "rejected", "lost"]
    at: float
    reason: str = ""
    answered: int = 0
    failed: int = 0
    expired: int = 0
    cancelled: int = 0
    missing: int = 0
    unknown: int = 0
    repeated: int = 0
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Begun:
    """When the uploads of a round began, and when its items are to be done."""

    at: float
    deadline_at: float | None


@dataclass(frozen=True, slots=True)
class Online:
    """That all which is not in an upload goes online, and why."""

    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class KeptUpload:
    """One upload as it is known here."""

    intent: Intent
    created: Created | None = None
    cancelled_at: float | None = None
    ended: Ended | None = None

    @property
    def is_running(self) -> bool:
        """Whether it is at the provider, as far as we know."""
        return self.created is not None and self.ended is None

    @property
    def covers(self) -> bool:
        """Whether its items wait for it, or waited."""
        return self.ended is None or self.ended.state != "rejected"


class UploadStore:
    """The uploads of one step."""

    def __init__(self, folder: RunFolder, step: int) -> None:
        self._run_folder = folder
        self._files = folder.files
        self._step = step
        self._place = uploads_folder(step)

    def all(self) -> list[KeptUpload]:
        """Every upload, in order."""
        names = {*self._files.names(self._place)}
        numbers = sorted(int(match[1]) for name in names if (match := _INTENT.fullmatch(name)))
        return [self._kept(number, names) for number in numbers]

    def one(self, number: int) -> KeptUpload:
        """One upload."""
        return self._kept(number, self._files.names(self._place))

    def _kept(self, number: int, names: Collection[str]) -> KeptUpload:
        def read(kind: type[T], what: str) -> T | None:
            return self._read(kind, _name(number, what)) if _name(number, what) in names else None

        intent = self._read(Intent, _name(number, "intent"))
        cancel = read(Created, "cancel")
        return KeptUpload(
            intent,
            read(Created, "created"),
            cancel.at if cancel else None,
            read(Ended, "ended"),
        )

    def intend(self, intent: Intent) -> None:
        """Writes down what is about to be made, also when it is tried again."""
        self._write(_name(intent.number, "intent"), intent)

    def drop(self, number: int) -> None:
        """Forgets an intent of which nothing was made."""
        self._files.remove(f"{self._place}/{_name(number, 'intent')}")

    def note_created(self, number: int, created: Created) -> bool:
        """Writes down what was made; False if another one was made for the same intent."""
        return self._create(_name(number, "created"), created)

    def known_ids(self) -> list[str]:
        """What the provider calls those that are known, and those that proved to be another's."""
        known = [one.created.id for one in self.all() if one.created is not None]
        strangers = self._maybe(Strangers, "strangers.json")
        return [*known, *(strangers.ids if strangers else ())]

    def forget_created(self, upload: KeptUpload) -> None:
        """Takes back that an upload was made: the one that was found is not ours."""
        assert upload.created is not None
        before = self._maybe(Strangers, "strangers.json")
        ids = (*(before.ids if before else ()), upload.created.id)
        self._write("strangers.json", Strangers(ids))
        self._files.remove(self._path(upload.intent.number, "created"))

    def note_cancel(self, number: int, at: float) -> None:
        """Writes down since when an upload is to be cancelled."""
        self._create(_name(number, "cancel"), Created("", at))

    def note_ended(self, number: int, ended: Ended) -> bool:
        """Writes down what came of an upload, after its answers; says whether it was this call."""
        return self._create(_name(number, "ended"), ended)

    def write_answers(self, number: int, answers: Iterable[tuple[int, Delivered]]) -> None:
        """Writes the answers of an upload by index; they may come in any order."""
        places: list[tuple[int, int, int]] = []
        with tempfile.TemporaryFile() as spool:
            for index, answer in answers:
                line = encode(answer) + b"\n"
                places.append((index, spool.tell(), len(line)))
                spool.write(line)
            places.sort()
            with self._files.writer(self._path(number, "answers"), durable=True) as file:
                _copy(spool, places, file)
        ends, end = [0], 0
        for _, _, length in places:
            ends.append(end := end + length)
        text = json.dumps({"indexes": [index for index, _, _ in places], "ends": ends})
        self._files.write(self._path(number, "places"), text.encode(), durable=True)

    def answers(
        self, indexes: Collection[int], uploads: Iterable[KeptUpload] | None = None
    ) -> dict[int, Delivered]:
        """The answers that came for items and were not used before a retry, by index."""
        kept = list(self.all() if uploads is None else uploads)
        used = earlier.uploads_tried(self._run_folder, self._step, indexes)
        found: dict[int, Delivered] = {}
        for upload in reversed(kept):
            if upload.ended is None or upload.ended.state == "rejected":
                continue
            left = [index for index in indexes if index not in found and upload.intent.has(index)]
            left = [index for index in left if upload.intent.tag not in used.get(index, ())]
            found |= self._read_answers(upload.intent.number, left)
        return found

    def _read_answers(self, number: int, indexes: Collection[int]) -> dict[int, Delivered]:
        if not indexes or not self._files.exists(self._path(number, "places")):
            return {}
        (known, ends), wanted = self._places(number), {*indexes}
        first = bisect.bisect_left(known, min(wanted))
        last = bisect.bisect_right(known, max(wanted))
        if first == last:
            return {}
        text = self._files.read_range(self._path(number, "answers"), ends[first], ends[last])
        lines = text.split(b"\n")[:-1]
        rows = zip(known[first:last], lines, strict=True)
        try:
            return {index: decode(Delivered, line) for index, line in rows if index in wanted}
        except (ValidationError, ValueError) as error:
            path = self._files.full(self._path(number, "answers"))
            raise StoreError(
                f"{path}: broken ({error}). Restore it, or remove its upload"
            ) from error

    def _places(self, number: int) -> tuple[list[int], list[int]]:
        """Where the answers of an upload that has ended begin; every batch of it asks."""
        path = self._path(number, "places")
        key = self._files.full(path)
        if key not in _known_places:
            found = json.loads(self._files.read(path))
            while len(_known_places) >= _MOST_PLACES:
                _known_places.pop(next(iter(_known_places)), None)
            _known_places[key] = found["indexes"], found["ends"]
        return _known_places[key]

    def forget_answers(self) -> None:
        """Removes the answers of a step that is done: they are in its outcomes."""
        for name in self._files.names(self._place):
            if name.endswith((".answers.jsonl", ".places.json")):
                self._files.remove(f"{self._place}/{name}")

    def round(self) -> int:
        """Which round it is: uploads of those before cover nothing."""
        found = self._maybe(Round, "round.json")
        return found.number if found else 0

    def begin_round(self) -> None:
        """Begins a new round, where there were uploads: what is left is covered by none of them."""
        if self._files.names(self._place):
            self._write("round.json", Round(self.round() + 1))

    def take_up(self) -> None:
        """Begins a new round if uploads of this one were cancelled because their run had ended."""
        round_, is_online = self.round(), self.online() is not None
        is_stopped = any(one.cancelled_at and one.intent.round == round_ for one in self.all())
        if is_stopped and not is_online:
            self.begin_round()

    def begin(self, begun: Begun) -> Begun:
        """Writes down when this round began, once; returns what is written."""
        name = f"begun-{self.round()}.json"
        self._create(name, begun)
        return self._read(Begun, name)

    def begun(self) -> Begun | None:
        """When this round began."""
        return self._maybe(Begun, f"begun-{self.round()}.json")

    def go_online(self, online: Online) -> bool:
        """Lets all that is not in an upload go online in this round; False if it does already."""
        return self._create(f"online-{self.round()}.json", online)

    def online(self) -> Online | None:
        """Since when, and why, what is in no upload goes online in this round."""
        return self._maybe(Online, f"online-{self.round()}.json")

    def most_lines(self) -> int | None:
        """The most lines that an upload may have, after the provider refused one as too many."""
        found = self._maybe(Most, "most.json")
        return found.lines if found else None

    def note_most_lines(self, lines: int) -> None:
        """Keeps that number."""
        self._write("most.json", Most(lines))

    def _path(self, number: int, what: str) -> str:
        return f"{self._place}/{_name(number, what)}"

    def _write(self, name: str, value: Any) -> None:
        self._files.write(f"{self._place}/{name}", encode(value), durable=True)

    def _create(self, name: str, value: Any) -> bool:
        return self._files.create(f"{self._place}/{name}", encode(value))

    def _maybe(self, kind: type[T], name: str) -> T | None:
        return self._read(kind, name) if self._files.exists(f"{self._place}/{name}") else None

    def _read(self, kind: type[T], name: str) -> T:
        path = f"{self._place}/{name}"
        try:
            return decode(kind, self._files.read(path))
        except ValidationError as error:
            raise StoreError(
                f"{self._files.full(path)}: broken. Restore it: it says what is at the provider"
            ) from error


@dataclass(frozen=True, slots=True)
class Round:
    """The number of a round, from 0."""

    number: int


@dataclass(frozen=True, slots=True)
class Strangers:
    """Uploads at the provider that are not ours."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Most:
    """The most lines of an upload."""

    lines: int


def is_ready(batch: int, uploads: Iterable[KeptUpload], round_: int, *, goes_online: bool) -> bool:
    """Whether a batch can be sent: all that it waits for has come, or it waits for nothing."""
    here = [
        one
        for one in uploads
        if one.intent.round == round_
        and one.covers
        and one.intent.first <= batch <= one.intent.last
    ]
    if any(one.ended is None for one in here):
        return False
    is_whole = any(batch < one.intent.last or not one.intent.cuts for one in here)
    return is_whole or goes_online


def _name(number: int, what: str) -> str:
    return f"{number:06d}.{what}.{'jsonl' if what == 'answers' else 'json'}"


def _copy(spool: IO[bytes], places: Iterable[tuple[int, int, int]], file: IO[bytes]) -> None:
    for _, start, length in places:
        spool.seek(start)
        file.write(spool.read(length))
