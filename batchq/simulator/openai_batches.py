"""OpenAI's files and batches: the requests about them read, what they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchq.simulator import openai_format
from batchq.simulator.batch_results import respond
from batchq.simulator.batches import Batch, Batches, Line, Problem, State, Untouched
from batchq.simulator.chat import (
    Answer,
    Call,
    Rejected,
    Rejection,
    Response,
    json_object,
    require,
)
from batchq.simulator.http import Request
from batchq.simulator.openai_input import ENDPOINT, InputReader, read_form
from batchq.simulator.options import SimulatorOptions

MAX_PAGE = 100
UNTOUCHED = {
    Untouched.EXPIRED: "This request could not be executed before the completion window expired.",
    Untouched.CANCELLED: "This request was not executed: the batch was cancelled.",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file that somebody sent."""

    id: str
    name: str
    purpose: str
    created: int
    content: bytes


class OpenAIBatches:
    """Answers requests to `/files` and `/batches`; `stamp` gives epoch seconds of a moment."""

    def __init__(self, batches: Batches, stamp: Callable[[float], float]) -> None:
        self._batches = batches
        self._stamp = stamp
        self._files: dict[str, File] = {}
        self._sent = 0

    def handle(self, request: Request, options: SimulatorOptions) -> Response:
        """Answers a request; raises Rejected for one that is wrong."""
        match (request.method, request.path.removeprefix("/v1").strip("/").split("/")):
            case "POST", ["files"]:
                return self._keep(request)
            case "GET", ["files"]:
                files = [_file(file) for file in reversed(self._files.values())]
                return Response(200, page(files, request.query))
            case "GET", ["files", name]:
                return Response(200, _file(self._find(name)))
            case "DELETE", ["files", name]:
                del self._files[self._find(name).id]
                return Response(200, {"id": name, "object": "file", "deleted": True})
            case "GET", ["files", name, "content"]:
                return self._content(name, options)
            case "POST", ["batches"]:
                return Response(200, self._create(request, options))
            case "GET", ["batches"]:
                batches = [self._batch(batch) for batch in self._batches.newest("openai")]
                return Response(200, page(batches, request.query))
            case "GET", ["batches", name]:
                return Response(200, self._batch(self._batches.get("openai", name)))
            case "POST", ["batches", name, "cancel"]:
                return Response(200, self._batch(self._batches.cancel("openai", name)))
        raise Rejected(Rejection.UNKNOWN_PATH, f"Unknown request: {request.method} {request.path}")

    def _keep(self, request: Request) -> Response:
        fields, (name, content) = read_form(request)
        purpose = fields.get("purpose", "")
        if purpose != "batch":
            raise Rejected(Rejection.BAD_REQUEST, "purpose: this simulator keeps files for 'batch'")
        self._sent += 1
        file = File(
            f"file-{self._sent:012d}", name, purpose, int(self._stamp(self._batches.now())), content
        )
        self._files[file.id] = file
        return Response(200, _file(file))

    def _find(self, name: str) -> File:
        if name not in self._files:
            raise Rejected(Rejection.UNKNOWN_ID, f"No such File object: {name}")
        return self._files[name]

    def _content(self, name: str, options: SimulatorOptions) -> Response:
        kind, _, batch_id = name.partition("-of-")
        if not batch_id:
            content = self._find(name).content
            return Response(200, {}, {"content-type": "application/octet-stream"}, content=content)
        batch = self._batches.get("openai", batch_id)
        if name not in self._results(batch).values():
            raise Rejected(Rejection.UNKNOWN_ID, f"No such File object: {name}")
        is_output = kind == "output"
        lines = [
            line
            for line in batch.result_lines()
            if line.outcome is not None and isinstance(line.outcome, Answer) == is_output
        ]
        return respond(batch, kind, lines, lambda line: _result(batch, line), options)

    def _create(self, request: Request, options: SimulatorOptions) -> Mapping[str, Any]:
        body = json_object(request.body)
        file = self._find(require(body, "input_file_id", str, "the id of a file"))
        if require(body, "endpoint", str, "an endpoint") != ENDPOINT:
            raise Rejected(Rejection.BAD_REQUEST, f"endpoint: this simulator has {ENDPOINT} only")
        if require(body, "completion_window", str, "a window") != "24h":
            raise Rejected(Rejection.BAD_REQUEST, "completion_window: Currently only 24h")
        metadata = read_metadata(body.get("metadata"))
        reader = InputReader(options)
        calls = reader.read(file.content)
        problems = reader.problems
        if not problems and (full := self._batches.queue_problem(calls, options)):
            problems = [full]
        details = {"input_file_id": file.id, "metadata": metadata}
        batch = self._batches.create("openai", calls, options, details=details, problems=problems)
        # It is looked into later, as by the real one: the next poll tells what was found.
        return {**self._batch(batch), **_NOT_LOOKED_INTO}

    def _results(self, batch: Batch) -> dict[str, str]:
        """The files that a batch has by now, by the names of their fields."""
        kinds = {isinstance(line.outcome, Answer) for line in batch.lines if line.outcome}
        names = {True: "output", False: "error"}
        return {f"{names[kind]}_file_id": f"{names[kind]}-of-{batch.id}" for kind in kinds}

    def _batch(self, batch: Batch) -> dict[str, Any]:
        state, counts = batch.state, batch.counts()
        at = int(self._stamp(batch.created_at))
        ended_at = int(self._stamp(batch.ends_at))
        if state is State.ENDED:
            status = "cancelled" if counts.cancelled else "completed"
            status = "expired" if counts.expired else status
        else:
            status = _STATUSES[state]
        moments: dict[str, int | None] = {f"{name}_at": None for name in _MOMENTS}
        moments |= {"created_at": at, "expires_at": int(self._stamp(batch.expires_at))}
        if status != "failed":
            moments["in_progress_at"] = at
        if status in _FINAL:
            moments[f"{status}_at"] = ended_at
        if batch.cancelled_at is not None:
            moments["cancelling_at"] = int(self._stamp(batch.cancelled_at))
        found = self._results(batch) if state is State.ENDED else {}
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": ENDPOINT,
            "completion_window": "24h",
            "status": status,
            "errors": _errors(batch.problems),
            "output_file_id": found.get("output_file_id"),
            "error_file_id": found.get("error_file_id"),
            "request_counts": {
                "total": len(batch.lines),
                "completed": counts.answered,
                "failed": counts.failed,
            },
            **batch.details,
            **moments,
        }


_MOMENTS = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling",
            "cancelled")  # fmt: skip
_STATUSES = {
    State.REJECTED: "failed",
    State.RUNNING: "in_progress",
    State.CANCELLING: "cancelling",
}
_FINAL = ("failed", "completed", "expired", "cancelled")
_NOT_LOOKED_INTO: Mapping[str, Any] = {
    "status": "validating",
    "errors": None,
    "request_counts": {"total": 0, "completed": 0, "failed": 0},
    "output_file_id": None,
    "error_file_id": None,
    **{f"{name}_at": None for name in _MOMENTS},
}


def _result(batch: Batch, line: Line) -> Mapping[str, Any]:
    name = f"batch_req_{batch.id}_{line.prompt:x}_{line.time}"
    result: dict[str, Any] = {"id": name, "custom_id": line.id, "response": None, "error": None}
    outcome = line.outcome
    if isinstance(outcome, Answer) and isinstance(line.call, Call):
        body = openai_format.write_answer(line.call, outcome, name)
        result["response"] = {"status_code": 200, "request_id": name, "body": body}
    elif isinstance(outcome, Rejected):
        refusal = openai_format.write_error(outcome, name)
        result["response"] = {
            "status_code": refusal.status,
            "request_id": name,
            "body": refusal.body,
        }
    elif isinstance(outcome, Untouched):
        result["error"] = {"code": f"batch_{outcome}", "message": UNTOUCHED[outcome]}
    return result


def _errors(problems: Sequence[Problem]) -> Mapping[str, Any] | None:
    if not problems:
        return None
    data = [
        {
            "code": problem.code,
            "message": problem.message,
            "line": problem.line or None,
            "param": None,
        }
        for problem in problems
    ]
    return {"object": "list", "data": data}


def _file(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": len(file.content),
        "created_at": file.created,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
    }


def page(objects: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> Mapping[str, Any]:
    """A page of a list, after the object that `after` names."""
    ids = [found["id"] for found in objects]
    start = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
    limit = query.get("limit", "20")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= MAX_PAGE):
        raise Rejected(Rejection.BAD_REQUEST, f"limit: a number from 1 to {MAX_PAGE} is needed")
    end = start + int(limit)
    shown = objects[start:end]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": end < len(objects),
    }


def read_metadata(value: Any) -> Mapping[str, str] | None:
    """Reads up to 16 pairs of strings."""
    if value is None:
        return None
    is_right = isinstance(value, dict) and len(value) <= 16
    if not is_right or not all(
        isinstance(text, str) and len(name) <= 64 and len(text) <= 512
        for name, text in value.items()
    ):
        raise Rejected(
            Rejection.BAD_REQUEST, "metadata: up to 16 strings, of 512 characters at most"
        )
    return dict(value)
