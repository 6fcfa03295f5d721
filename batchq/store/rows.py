"""Turns a step's outcomes into the rows of its collated file, and these into each format."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, Protocol

from pydantic_core import to_json as write_known

from batchq.errors import StoreError
from batchq.outcome import Json, Outcome, SentPrompt
from batchq.plan import OutputSpec
from batchq.text.prompts import flatten
from batchq.text.tabular import write_csv, write_parquet

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_YAML_PLAIN = re.compile(r"[A-Za-z_]([A-Za-z0-9_ ./-]*[A-Za-z0-9_./-])?")
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def to_json(value: Json, indent: int | None = None) -> bytes:
    """Writes JSON in UTF-8; text that UTF-8 cannot hold (half a surrogate pair) is escaped."""
    try:
        if indent is None:
            return _encode(value).encode()
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent).encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, indent=indent).encode()


def known_json(value: Json) -> bytes:
    """Writes a value that was read from JSON, indented by 2, ten times as fast as `to_json` does.

    Not for what users' functions give: it would make something of values that are no JSON.
    """
    return write_known(value, indent=2)


class Done(Protocol):
    """What rows are made of: an outcome, or its line in a record."""

    @property
    def item_id(self) -> str:
        """The item's id."""
        ...

    @property
    def index(self) -> int:
        """Its place in the input, from 0."""
        ...

    @property
    def is_ok(self) -> bool:
        """Whether it has an output."""
        ...

    @property
    def output(self) -> Json:
        """The output; None unless ok."""
        ...


def shape(outcome: Done, output: OutputSpec) -> Json:
    """The output of an item as users see it: a mapping starts with its number and its source.

    The number is `id_start` plus the item's place in the input, so an item keeps it in every rerun,
    whatever became of the items before it. Keys of the same name in the output give way, but to
    the id that a later step goes by. A text or a list that is to be numbered becomes `output`.
    """
    value = outcome.output
    if not isinstance(value, Mapping):
        if not output.id_field:
            return value
        value = {"output": value}
    first: dict[str, Json] = {}
    if output.id_field:
        first[output.id_field] = output.id_start + outcome.index
    if output.source_id_field:
        first[f"source_{output.source_id_field}"] = outcome.item_id
    if output.kept_id_field and output.kept_id_field not in value:
        is_number = output.kept_id_is_number
        first[output.kept_id_field] = int(outcome.item_id) if is_number else outcome.item_id
    if not first:
        return value
    return first | {key: inner for key, inner in value.items() if key not in first}


def prompt_text(prompts: Sequence[SentPrompt]) -> str:
    """One prompt as it is; those of several stages under the stage's name."""
    if len(prompts) == 1:
        return prompts[0].text
    return "\n\n".join(f"# {one.stage or 'prompt'}\n\n{one.text}" for one in prompts) + "\n"


def error_row(step: int, outcome: Outcome) -> dict[str, Json]:
    """A failed item as it stands in the errors file."""
    error = outcome.error
    row: dict[str, Json] = {
        "item_id": outcome.item_id,
        "item_index": outcome.index,
        "error": error.message if error else "",
        "step": step,
        "kind": error.kind if error else "",
        "attempts": len(outcome.attempts),
    }
    return row | {"stage": error.stage} if error and error.stage else row


class Rows:
    """The rows of a collated file; can be read more than once, and never holds more than one.

    After a reading `dropped` counts the duplicates left out, and `errors` the failed items.
    Deduplication keeps 16 bytes for every distinct value.
    """

    def __init__(self, read: Callable[[], Iterator[Done]], output: OutputSpec) -> None:
        self.output = output
        self.dropped = 0
        self.errors = 0
        self.written = 0
        self._read = read

    def __iter__(self) -> Iterator[Json]:
        return (row for _, row in self.indexed())

    def indexed(self) -> Iterator[tuple[int, Json]]:
        """The rows, each with the index of its item."""
        self.dropped = self.errors = self.written = 0
        kept = self._last_places() if self.output.dedup_keep == "last" else {}
        for outcome in self._read():
            if not outcome.is_ok:
                self.errors += 1
                continue
            key = self._key(outcome)
            if key is not None and kept.setdefault(key, outcome.index) != outcome.index:
                self.dropped += 1
                continue
            self.written += 1
            yield outcome.index, shape(outcome, self.output)

    def _last_places(self) -> dict[bytes, int]:
        places: dict[bytes, int] = {}
        for outcome in self._read():
            key = self._key(outcome) if outcome.is_ok else None
            if key is not None:
                places[key] = outcome.index
        return places

    def _key(self, outcome: Done) -> bytes | None:
        """A digest of what duplicates share; None for an output that has none of the fields."""
        if not self.output.dedup_by:
            return None
        fields = flatten(outcome.output)
        values = [fields.get(name) for name in self.output.dedup_by]
        if all(value is None for value in values):
            return None
        text = json.dumps(values, sort_keys=True).encode()
        return hashlib.blake2b(text, digest_size=16).digest()


def write_rows(file: IO[bytes], suffix: str, rows: Iterable[Json]) -> None:
    """Writes rows one by one in the format of a suffix; `.csv` and `.parquet` read them twice."""
    _writer_of(suffix, _ROW_WRITERS)(file, rows)


def write_document(file: IO[bytes], suffix: str, content: Json) -> None:
    """Writes content that is no list as one document; only `.json` and `.yaml` hold such."""
    _writer_of(suffix, {".json": _json_document, ".yaml": _yaml, ".yml": _yaml})(file, content)


def _writer_of(suffix: str, writers: Mapping[str, Callable[..., None]]) -> Callable[..., None]:
    if suffix not in writers:
        raise StoreError(
            f"an output_file that ends in {suffix or 'nothing'} cannot hold this output: "
            f"use one of {', '.join(writers)}"
        )
    return writers[suffix]


def _json_array(file: IO[bytes], rows: Iterable[Json]) -> None:
    write = known_json if isinstance(rows, Rows) else _indented
    is_first = True
    for row in rows:
        file.write(b"[\n  " if is_first else b",\n  ")
        file.write(write(row).replace(b"\n", b"\n  "))
        is_first = False
    file.write(b"[]\n" if is_first else b"\n]\n")


def _indented(value: Json) -> bytes:
    return to_json(value, indent=2)


def _json_document(file: IO[bytes], content: Json) -> None:
    file.write(_indented(content) + b"\n")


def _json_lines(file: IO[bytes], rows: Iterable[Json]) -> None:
    for row in rows:
        file.write(to_json(row) + b"\n")


def _yaml_rows(file: IO[bytes], rows: Iterable[Json]) -> None:
    is_empty = True
    for row in rows:
        _yaml(file, [row])
        is_empty = False
    if is_empty:
        file.write(b"[]\n")


def _yaml(file: IO[bytes], content: Json) -> None:
    from ruamel.yaml import YAML  # takes 50 ms that other formats do not need

    writer: Any = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.allow_unicode = True
    writer.width = 1_000_000  # one line a text
    writer.sort_base_mapping_type_on_output = False
    writer.representer.add_representer(str, _yaml_text)
    writer.dump(content, file)


def _yaml_text(representer: Any, text: str) -> Any:
    """Quotes what a reader of YAML 1.1 would take for something else: `no`, `22:30`, `1e3`."""
    is_plain = _YAML_PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS
    return representer.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if is_plain else '"'
    )


_ROW_WRITERS: dict[str, Callable[..., None]] = {
    ".json": _json_array,
    ".jsonl": _json_lines,
    ".csv": write_csv,
    ".parquet": write_parquet,
    ".yaml": _yaml_rows,
    ".yml": _yaml_rows,
}
