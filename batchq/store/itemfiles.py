"""The files of single items: one an item, or, of a step with very many, one a batch.

    items/<id>/01_output.json          prompts/01_prompt_<id>.md
    packed/01_items/000000.jsonl       packed/01_prompts/000000.jsonl      above PACKED_ABOVE items

A million folders of one file each take a disk longer than the items themselves, and no program that
lists them likes it. What is packed has a line an item, with its id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from pydantic_core import to_json as write_known

from batchq.outcome import Json, Outcome
from batchq.plan import OutputSpec
from batchq.store import frozen
from batchq.store.files import Files
from batchq.store.names import safe_name
from batchq.store.rows import known_json, prompt_text, shape, to_json
from batchq.store.stats import stats_file, stats_of

PACKED_ABOVE = 20_000
"""A step with more items has no folder for each."""


def is_packed(files: Files, step: int) -> bool:
    """Whether the items of a step share files."""
    return (frozen.count(files, step) or 0) > PACKED_ABOVE


def write_items(
    files: Files, step: int, batch: int, outcomes: Sequence[Outcome], output: OutputSpec
) -> None:
    """Writes what people look at of a batch's items: outputs, prompts, and what was measured."""
    if is_packed(files, step):
        _write_packed(files, step, batch, outcomes, output)
        return
    found: dict[str, bytes] = {}
    for outcome in outcomes:
        found |= stats_file(step, outcome)
        if outcome.is_ok:
            text = known_json(shape(outcome, output)) + b"\n"
            found[_output_path(step, outcome.item_id)] = text
        if outcome.prompts:
            text = prompt_text(outcome.prompts).encode(errors="backslashreplace")
            found[_prompt_path(step, outcome.item_id)] = text
    files.write_many(found)


def find_output(files: Files, step: int, batch: int, item_id: str) -> tuple[str, Json] | None:
    """The path and the content of an item's output file, None without one; a broken one is null."""
    path = _output_path(step, item_id)
    if files.exists(path):
        with suppress(ValueError):
            return path, json.loads(files.read(path))
        return path, None
    packed, line = _find_packed(files, step, "items", batch, item_id)
    return (packed, line["output"]) if "output" in line else None


def find_prompt(files: Files, step: int, batch: int, item_id: str) -> tuple[str, str] | None:
    """The path of an item's prompts, and their text; None if they were not kept."""
    path = _prompt_path(step, item_id)
    if files.exists(path):
        return path, files.read(path).decode(errors="replace")
    packed, line = _find_packed(files, step, "prompts", batch, item_id)
    return (packed, str(line["prompt"])) if "prompt" in line else None


def _write_packed(
    files: Files, step: int, batch: int, outcomes: Sequence[Outcome], output: OutputSpec
) -> None:
    lines, prompts = [], {}
    for outcome in sorted(outcomes, key=lambda one: one.index):
        line: dict[str, Json] = {"id": outcome.item_id}
        if outcome.is_ok:
            line["output"] = shape(outcome, output)
        if stats := stats_of(outcome):
            line["stats"] = stats
        if len(line) > 1:
            lines.append(write_known(line) + b"\n")
        if outcome.prompts:
            prompts[outcome.item_id] = prompt_text(outcome.prompts)
    found = {_packed_path(step, "items", batch): b"".join(lines)}
    if prompts:
        path = _packed_path(step, "prompts", batch)
        # Of items that ended before a retry of others nobody knows the prompts but this file.
        kept = {one["id"]: one["prompt"] for one in _lines(files, path) if "prompt" in one}
        rows = ({"id": name, "prompt": text} for name, text in (kept | prompts).items())
        found[path] = b"".join(to_json(row) + b"\n" for row in rows)
    files.write_many(found)


def _find_packed(
    files: Files, step: int, kind: str, batch: int, item_id: str
) -> tuple[str, dict[str, Any]]:
    """The file that an item's line is in, and the line; an empty one if it is not there."""
    path = _packed_path(step, kind, batch)
    return path, next((one for one in _lines(files, path) if one.get("id") == item_id), {})


def _lines(files: Files, path: str) -> Iterator[dict[str, Any]]:
    if files.exists(path):
        with files.reader(path) as file:
            for text in file:
                with suppress(ValueError):
                    yield json.loads(text)


def _output_path(step: int, item_id: str) -> str:
    return f"items/{safe_name(item_id)}/{step:02d}_output.json"


def _prompt_path(step: int, item_id: str) -> str:
    return f"prompts/{step:02d}_prompt_{safe_name(item_id)}.md"


def _packed_path(step: int, kind: str, batch: int) -> str:
    return f"packed/{step:02d}_{kind}/{batch:06d}.jsonl"
