"""Anthropic's message batches: the requests about them read, what they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from batchq.simulator import anthropic_format
from batchq.simulator.batch_results import respond
from batchq.simulator.batches import Batch, Batches, Line, State
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
from batchq.simulator.options import SimulatorOptions

MAX_LINES = 100_000
MAX_BYTES = 256_000_000
MAX_PAGE = 1000
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_STATUSES = {State.RUNNING: "in_progress", State.CANCELLING: "canceling", State.ENDED: "ended"}


class AnthropicBatches:
    """Answers requests to `/messages/batches`; `stamp` gives epoch seconds of a moment."""

    def __init__(self, batches: Batches, stamp: Callable[[float], float]) -> None:
        self._batches = batches
        self._stamp = stamp

    def handle(self, request: Request, options: SimulatorOptions) -> Response:
        """Answers a request; raises Rejected for one that is wrong."""
        if not request.headers.get("anthropic-version"):
            raise Rejected(Rejection.BAD_REQUEST, "anthropic-version: header is required")
        place = f"http://{request.headers.get('host', '127.0.0.1')}"
        path = request.path.removeprefix("/v1").strip("/").split("/")[2:]
        match request.method, path:
            case "POST", []:
                batch = self._create(request, options)
                return Response(200, self._batch(batch, place, is_new=True))
            case "GET", []:
                batches = [self._batch(each, place) for each in self._list()]
                return Response(200, page(batches, request.query))
            case "GET", [name]:
                batch = self._batches.get("anthropic", name)
                return Response(200, self._batch(batch, place))
            case "DELETE", [name]:
                self._batches.remove("anthropic", name)
                return Response(200, {"id": name, "type": "message_batch_deleted"})
            case "POST", [name, "cancel"]:
                batch = self._batches.cancel("anthropic", name)
                return Response(200, self._batch(batch, place))
            case "GET", [name, "results"]:
                return self._results(self._batches.get("anthropic", name), options)
        raise Rejected(Rejection.UNKNOWN_PATH, f"Unknown request: {request.method} {request.path}")

    def _list(self) -> Sequence[Batch]:
        return [batch for batch in self._batches.newest("anthropic") if not batch.problems]

    def _create(self, request: Request, options: SimulatorOptions) -> Batch:
        if len(request.body) > (options.batch_max_bytes or MAX_BYTES):
            raise Rejected(Rejection.TOO_LARGE, "Request exceeds the maximum allowed size")
        calls = _read_calls(json_object(request.body), options)
        if full := self._batches.queue_problem(calls, options):
            message = "This would exceed the limit of requests in the batch processing queue."
            raise Rejected(Rejection.RATE_LIMITED, f"{message} {full.message}")
        batch = self._batches.create("anthropic", calls, options)
        if batch.problems:
            raise Rejected(Rejection.BAD_REQUEST, batch.problems[0].message)
        return batch

    def _results(self, batch: Batch, options: SimulatorOptions) -> Response:
        if batch.state is not State.ENDED:
            raise Rejected(Rejection.BAD_REQUEST, f"Batch {batch.id} has no results yet.")
        lines = batch.result_lines()
        return respond(batch, "results", lines, lambda line: _result(batch, line), options)

    def _batch(self, batch: Batch, place: str, *, is_new: bool = False) -> dict[str, Any]:
        state = State.RUNNING if is_new else batch.state
        counts = batch.counts()
        # The counts of what is done are zero until all is.
        done = state is State.ENDED
        results_url = f"{place}/v1/messages/batches/{batch.id}/results"
        cancelled_at = batch.cancelled_at
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": _STATUSES[state],
            "request_counts": {
                "processing": 0 if done else len(batch.lines),
                "succeeded": counts.answered if done else 0,
                "errored": counts.failed if done else 0,
                "canceled": counts.cancelled if done else 0,
                "expired": counts.expired if done else 0,
            },
            "created_at": self._moment(batch.created_at),
            "expires_at": self._moment(batch.expires_at),
            "ended_at": self._moment(batch.ends_at) if done else None,
            "cancel_initiated_at": None if cancelled_at is None else self._moment(cancelled_at),
            "archived_at": None,
            "results_url": results_url if done else None,
        }

    def _moment(self, at: float) -> str:
        return datetime.fromtimestamp(self._stamp(at), UTC).isoformat().replace("+00:00", "Z")


def _read_calls(
    body: Mapping[str, Any], options: SimulatorOptions
) -> Sequence[tuple[str, Call | Rejected]]:
    requests = require(body, "requests", list, "a list of requests")
    most = options.batch_max_lines or MAX_LINES
    if len(requests) > most:
        raise Rejected(
            Rejection.BAD_REQUEST, f"requests: {len(requests)} are too many, {most} are allowed"
        )
    seen: set[str] = set()
    calls = []
    for number, request in enumerate(requests):
        place = f"requests.{number}"
        if not isinstance(request, dict) or not isinstance(request.get("params"), dict):
            raise Rejected(Rejection.BAD_REQUEST, f"{place}.params: Field required")
        name = request.get("custom_id")
        if not isinstance(name, str) or not CUSTOM_ID.fullmatch(name):
            raise Rejected(
                Rejection.BAD_REQUEST,
                f"{place}.custom_id: String should match pattern '^{CUSTOM_ID.pattern}$'",
            )
        if name in seen:
            raise Rejected(Rejection.BAD_REQUEST, f"{place}.custom_id: {name} is there twice")
        seen.add(name)
        calls.append((name, _call(request["params"], options)))
    return calls


def _call(params: Mapping[str, Any], options: SimulatorOptions) -> Call | Rejected:
    """Reads a line; one that is wrong is answered with its own error."""
    try:
        call = anthropic_format.read_call(params, {"anthropic-version": "of the batch"})
    except Rejected as error:
        return error
    if options.models and call.model not in options.models:
        return Rejected(Rejection.UNKNOWN_MODEL, f"model: {call.model}")
    return call


def _result(batch: Batch, line: Line) -> Mapping[str, Any]:
    name = f"{batch.id}_{line.prompt:x}_{line.time}"
    outcome = line.outcome
    if isinstance(outcome, Answer) and isinstance(line.call, Call):
        message = anthropic_format.write_answer(line.call, outcome, name)
        result: Mapping[str, Any] = {"type": "succeeded", "message": message}
    elif isinstance(outcome, Rejected):
        error = anthropic_format.write_error(outcome, name).body
        result = {"type": "errored", "error": error}
    else:
        result = {"type": "canceled" if outcome == "cancelled" else "expired"}
    return {"custom_id": line.id, "result": result}


def page(objects: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> Mapping[str, Any]:
    """A page of a list, after the object that `after_id` names or before that of `before_id`."""
    ids = [found["id"] for found in objects]
    limit = query.get("limit", "20")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= MAX_PAGE):
        raise Rejected(Rejection.BAD_REQUEST, f"limit: a number from 1 to {MAX_PAGE} is needed")
    start, end = 0, len(ids)
    if query.get("after_id") in ids:
        start = ids.index(query["after_id"]) + 1
    if query.get("before_id") in ids:
        end = ids.index(query["before_id"])
        start = max(start, end - int(limit))
    shown = objects[start : min(end, start + int(limit))]
    return {
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": start + len(shown) < len(ids) if "before_id" not in query else start > 0,
    }
