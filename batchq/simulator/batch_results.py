"""The lines of a batch's results, and what may be wrong with a file of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from batchq.simulator.batches import Batch, Line
from batchq.simulator.chat import Response
from batchq.simulator.faults import draw
from batchq.simulator.options import SimulatorOptions

CONTENT_TYPE = "application/x-jsonl"


def respond(
    batch: Batch,
    name: str,
    lines: Iterable[Line],
    write: Callable[[Line], Mapping[str, Any]],
    options: SimulatorOptions,
) -> Response:
    """Sends a file of results, whole or as `batch_cut` says."""
    content = b"".join(_write(batch, lines, write))
    batch.downloads[name] += 1
    is_cut = options.batch_cut == "once" and batch.downloads[name] == 1
    if options.batch_cut == "always":
        content = content[: len(content) // 2].rstrip(b"\n")
    headers = {"content-type": CONTENT_TYPE}
    return Response(200, {}, headers, content=content, is_cut=is_cut)


def _write(
    batch: Batch, lines: Iterable[Line], write: Callable[[Line], Mapping[str, Any]]
) -> Iterator[bytes]:
    options = batch.options
    again = []
    for line in lines:

        def meets(rate: float, purpose: str, line: Line = line) -> bool:
            return draw(options.seed, line.prompt, line.time, purpose) < rate

        result = write(line)
        text = _text(result)
        if meets(options.batch_malformed_rate, "malformed"):
            text = text[: len(text) // 2] + b"\n"
        yield text
        if meets(options.batch_unknown_rate, "unknown"):
            yield _text({**result, "custom_id": f"unknown-{line.prompt % 10**6}"})
        if meets(options.batch_duplicate_rate, "duplicate"):
            again.append(text)
    yield from again


def _text(result: Mapping[str, Any]) -> bytes:
    return json.dumps(result, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
