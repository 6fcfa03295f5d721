"""Files of results, read line by line and matched with the lines that were sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from batchq.errors import ProviderError, ResultsCutOff, ServerFailed
from batchq.ports import ChatReply
from batchq.providers.http import MAX_ANSWER_BYTES
from batchq.uploads import Upload, UploadAnswer


@dataclass(frozen=True, slots=True)
class Results:
    """A file of results on this machine, at its start."""

    file: BinaryIO
    is_whole: bool

    def lines(self) -> Iterator[bytes]:
        """Reads line by line; of one that is longer than any answer only the first part."""
        while line := self.file.readline(MAX_ANSWER_BYTES):
            if not line.endswith(b"\n"):
                self._skip_rest()
            if line.strip():
                yield line

    def _skip_rest(self) -> None:
        while rest := self.file.readline(MAX_ANSWER_BYTES):
            if rest.endswith(b"\n"):
                return


def match(
    results: Sequence[Results],
    upload: Upload,
    name: str,
    read: Callable[[Mapping[str, Any]], ChatReply],
) -> Iterator[UploadAnswer]:
    """Reads all lines, in their order, with `read`, which raises ProviderError for an error.

    `name` is the provider's. Results that are not as many as the upload tells are cut off.
    """
    count = 0
    is_whole = all(result.is_whole for result in results)
    for text in (line for result in results for line in result.lines()):
        line = _object(text)
        line_id = line.get("custom_id")
        if isinstance(line_id, str) and line_id:
            count += 1
            yield _answer(line_id, line, read)
        elif text.endswith(b"\n"):
            count += 1
            problem = f"line {count} of the results of provider {name} is no answer"
            yield UploadAnswer("", error=ServerFailed(problem))
        else:
            is_whole = False  # the last line stops half way
    if not is_whole or count < upload.answered + upload.failed:
        problem = f"the results of upload {upload.id} of provider {name} end after {count} lines"
        yield UploadAnswer("", error=ResultsCutOff(problem))


def _answer(
    line_id: str, line: Mapping[str, Any], read: Callable[[Mapping[str, Any]], ChatReply]
) -> UploadAnswer:
    try:
        return UploadAnswer(line_id, reply=read(line))
    except ProviderError as problem:
        return UploadAnswer(line_id, error=problem)


def _object(text: bytes) -> Mapping[str, Any]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return line if isinstance(line, dict) else {}
