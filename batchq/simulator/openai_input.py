"""What a client of OpenAI's batches sends: a form with a file, and the lines in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batchq.simulator import openai_format
from batchq.simulator.batches import Problem
from batchq.simulator.chat import Call, Rejected, Rejection, json_object, require
from batchq.simulator.http import Request
from batchq.simulator.options import SimulatorOptions

ENDPOINT = "/v1/chat/completions"
MAX_LINES = 50_000
MAX_BYTES = 200_000_000
SHOWN_PROBLEMS = 10
BOUNDARY = re.compile(r"multipart/form-data;.*\bboundary=([^;]+)", re.I)


def read_form(request: Request) -> tuple[Mapping[str, str], tuple[str, bytes]]:
    """Reads a form with one file: its fields, and name and content of the file."""
    from tornado.httputil import (  # comes with Flower; not needed by those who send no files
        HTTPFile,
        HTTPInputError,
        parse_multipart_form_data,
    )

    boundary = BOUNDARY.search(request.headers.get("content-type", ""))
    if boundary is None:
        raise Rejected(Rejection.BAD_REQUEST, "a form of type multipart/form-data is needed")
    fields: dict[str, list[bytes]] = {}
    files: dict[str, list[HTTPFile]] = {}
    try:
        parse_multipart_form_data(boundary[1].strip().encode(), request.body, fields, files)
        texts = {name: values[-1].decode() for name, values in fields.items()}
    except (HTTPInputError, UnicodeDecodeError) as error:
        raise Rejected(Rejection.BAD_REQUEST, f"the form is malformed: {error}") from error
    if "file" not in files:
        raise Rejected(Rejection.BAD_REQUEST, "file: a file is required")
    file = files["file"][-1]
    return texts, (file.filename, file.body)


class InputReader:
    """Reads the lines of an input file and notes what is wrong with it."""

    def __init__(self, options: SimulatorOptions) -> None:
        self._options = options
        self._models: set[str] = set()
        self._ids: set[str] = set()
        self.problems: list[Problem] = []

    def read(self, content: bytes) -> Sequence[tuple[str, Call | Rejected]]:
        """The calls by their ids; not all of them where there are problems."""
        most_bytes = self._options.batch_max_bytes or MAX_BYTES
        most_lines = self._options.batch_max_lines or MAX_LINES
        texts = [text for text in content.split(b"\n") if text.strip()]
        if len(content) > most_bytes:
            self._note("file_too_large", f"The file may have {most_bytes} bytes")
        elif len(texts) > most_lines:
            message = f"The batch input file contains {len(texts)} requests, the maximum is"
            self._note("too_many_requests", f"{message} {most_lines}")
        elif not texts:
            self._note("empty_file", "The input file is empty.")
        else:
            return list(self._calls(texts))
        return ()

    def _calls(self, texts: Sequence[bytes]) -> Iterator[tuple[str, Call | Rejected]]:
        for number, text in enumerate(texts, 1):
            if len(self.problems) >= SHOWN_PROBLEMS:
                return
            try:
                line = json_object(text)
                line_id = require(line, "custom_id", str, "an id")
                body = require(line, "body", dict, "an object")
                if line.get("method") != "POST" or line.get("url") != ENDPOINT:
                    raise Rejected(Rejection.BAD_REQUEST, f"method and url: POST {ENDPOINT}")
                model = require(body, "model", str, "the name of a model")
            except Rejected as error:
                self._note("invalid_request", str(error), number)
                continue
            self._check(line_id, model, number)
            yield line_id, _call(body)

    def _check(self, line_id: str, model: str, number: int) -> None:
        if line_id in self._ids:
            message = f"The custom_id '{line_id}' is used more than once"
            self._note("duplicate_custom_id", message, number)
        self._ids.add(line_id)
        self._models.add(model)
        known = self._options.models
        if known and model not in known:
            self._note("model_not_found", f"The model `{model}` does not exist", number)
        elif len(self._models) > 1:
            self._note("mismatched_model", "All requests must be for one model", number)

    def _note(self, code: str, message: str, line: int = 0) -> None:
        self.problems.append(Problem(code, message, line))


def _call(body: Mapping[str, Any]) -> Call | Rejected:
    try:
        return openai_format.read_call(body, {})
    except Rejected as error:
        return error
