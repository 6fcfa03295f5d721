"""The batches of OpenAI, which many compatible servers have, too: files in, files out."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

from batchq.endpoint import ProviderSpec
from batchq.errors import (
    BadRequest,
    FormRefused,
    ProviderError,
    ServerFailed,
    UploadCancelled,
    UploadExpired,
    UploadQuotaUsedUp,
)
from batchq.ports import ChatReply
from batchq.providers.failures import failure, kind_of, read_key, redact
from batchq.providers.http import Answer, write_json
from batchq.providers.openai import (
    BASE_URL,
    Dialects,
    base_url_of,
    build_body,
    headers_of,
    read_reply,
)
from batchq.providers.results import match
from batchq.providers.wire import (
    CLOCK_SLACK_S,
    Wire,
    is_about_quota,
    objects,
    on_their_clock,
    read_count,
    read_time,
)
from batchq.uploads import (
    Upload,
    UploadAnswer,
    UploadLimits,
    UploadLine,
    UploadState,
)

LIMITS = UploadLimits(lines=50_000, bytes=200_000_000)
OTHERS_LIMITS = UploadLimits(lines=50_000, bytes=100_000_000)
"""What the strictest of the compatible servers allows, Together's."""
ENDPOINT = "/v1/chat/completions"
WINDOW = "24h"
TAG = "batchq"
"""The key of the metadata that holds an upload's tag."""
PAGE = 100
SHOWN_PROBLEMS = 3
_STATES: Mapping[str, UploadState] = {
    "failed": "rejected",
    "completed": "ended",
    "expired": "ended",
    "cancelled": "ended",
    "cancelling": "cancelling",
}


class OpenAIUploads:
    """Calls `/files` and `/batches`; what a line asks is what `OpenAIChat` would ask online."""

    def __init__(self, dialects: Dialects) -> None:
        self._dialects = dialects

    def limits(self, provider: ProviderSpec) -> UploadLimits:
        """50,000 lines and 200 MB; half of that size where another than OpenAI is asked."""
        is_theirs = base_url_of(provider) == BASE_URL or provider.kind == "simulator"
        return LIMITS if is_theirs else OTHERS_LIMITS

    def size(self, line: UploadLine) -> int:
        """Bytes of a line of the file."""
        return len(self._write(line))

    def create(self, provider: ProviderSpec, tag: str, lines: Iterable[UploadLine]) -> Upload:
        """Sends the file, then makes a batch of it that has the tag in its metadata."""
        wire = _wire(provider)
        mark = uuid.uuid4().hex
        parts = _form(mark, f"{tag}.jsonl", map(self._write, lines))
        sent = wire.send("/files", f"multipart/form-data; boundary={mark}", parts)
        body = {
            "input_file_id": _id(sent, provider),
            "endpoint": ENDPOINT,
            "completion_window": WINDOW,
            "metadata": {TAG: tag},
        }
        return read_upload(wire.post("/batches", body), wire)

    def find(
        self,
        provider: ProviderSpec,
        tag: str,
        since: float,
        lines: int,  # noqa: ARG002 (the tag is enough)
        known: Collection[str] = (),
    ) -> Upload | None:
        """Looks for the tag in the list, which begins with the newest."""
        wire = _wire(provider)
        after = ""
        while True:
            page, headers = wire.get(f"/batches?limit={PAGE}{after}")
            found = objects(page.get("data"))
            for batch in found:
                metadata = batch.get("metadata")
                is_ours = isinstance(metadata, dict) and metadata.get(TAG) == tag
                if is_ours and batch.get("id") not in known:
                    return read_upload(batch, wire)
            if not (found and page.get("has_more")):
                return None
            oldest = read_time(found[-1].get("created_at"))
            if oldest is not None and oldest < on_their_clock(since, headers) - CLOCK_SLACK_S:
                return None
            after = f"&after={quote(_id(found[-1], provider), safe='')}"

    def poll(self, provider: ProviderSpec, upload: str) -> Upload:
        """Asks where an upload stands."""
        wire = _wire(provider)
        return read_upload(_get(wire, upload), wire)

    def answers(
        self,
        provider: ProviderSpec,
        upload: str,
        schema: Mapping[str, Any] | None = None,  # noqa: ARG002 (an answer's form is its own here)
    ) -> Iterator[UploadAnswer]:
        """Reads the files of outputs and of errors, once both are on the disk."""
        wire = _wire(provider)
        batch = _get(wire, upload)
        told = read_upload(batch, wire)
        if not told.is_final:
            raise BadRequest(f"upload {upload} of provider {provider.name} has not ended yet")
        asked = _asked(self._dialects.of(provider))

        def read(line: Mapping[str, Any]) -> ChatReply:
            try:
                return read_line(line, wire)
            except BadRequest as refusal:
                if self._dialects.learn(provider, refusal, asked):
                    raise FormRefused(str(refusal), status=refusal.status) from None
                raise

        ids = filter(None, (batch.get("output_file_id"), batch.get("error_file_id")))
        with ExitStack() as files:
            results = [
                files.enter_context(wire.fetched(f"/files/{quote(str(file), safe='')}/content"))
                for file in ids
            ]
            yield from match(results, told, provider.name, read)

    def cancel(self, provider: ProviderSpec, upload: str) -> Upload:
        """Cancels an upload, or tells how it ended."""
        wire = _wire(provider)
        try:
            return read_upload(wire.post(f"/batches/{quote(upload, safe='')}/cancel"), wire)
        except BadRequest:
            told = self.poll(provider, upload)
            if told.state in ("ended", "rejected", "cancelling"):
                return told
            raise

    def _write(self, line: UploadLine) -> bytes:
        request = line.request
        body = build_body(request, self._dialects.of(request.provider))
        whole = {"custom_id": line.id, "method": "POST", "url": ENDPOINT, "body": body}
        return write_json(whole) + b"\n"


def _wire(provider: ProviderSpec) -> Wire:
    key = read_key(provider)
    return Wire(provider, base_url_of(provider), headers_of(key), key)


def _get(wire: Wire, upload: str) -> dict[str, Any]:
    return wire.get(f"/batches/{quote(upload, safe='')}")[0]


def _form(mark: str, name: str, lines: Iterable[bytes]) -> Iterator[bytes]:
    """The form that a file is sent in; its lines cannot hold the mark by chance."""
    field = "Content-Disposition: form-data; name="
    yield f'--{mark}\r\n{field}"purpose"\r\n\r\nbatch\r\n--{mark}\r\n{field}"file"'.encode()
    yield f'; filename="{name}"\r\nContent-Type: application/jsonl\r\n\r\n'.encode()
    yield from lines
    yield f"\r\n--{mark}--\r\n".encode()


def _asked(dialect: frozenset[str]) -> dict[str, Any]:
    """The fields that a server may have refused in lines of this dialect."""
    form = "json_object" if "json_object" in dialect else "json_schema"
    asked: dict[str, Any] = {"response_format": {"type": form}}
    if "max_completion_tokens" not in dialect:
        asked["max_tokens"] = 1
    if "no_response_format" in dialect:
        del asked["response_format"]
    return asked


def _id(data: Mapping[str, Any], provider: ProviderSpec) -> str:
    found = data.get("id")
    if not isinstance(found, str) or not found:
        raise ServerFailed(f"provider {provider.name} gave no id: has base_url batch endpoints?")
    return found


def read_upload(data: Mapping[str, Any], wire: Wire) -> Upload:
    """Reads where an upload stands; raises ServerFailed for what is none."""
    counts = data.get("request_counts")
    counts = counts if isinstance(counts, dict) else {}
    # Compatible servers have words of their own for what is under way.
    state = _STATES.get(str(data.get("status")).lower(), "running")
    return Upload(
        id=_id(data, wire.provider),
        state=state,
        lines=read_count(counts.get("total")),
        answered=read_count(counts.get("completed")),
        failed=read_count(counts.get("failed")),
        created_at=read_time(data.get("created_at")) or 0.0,
        expires_at=read_time(data.get("expires_at")),
        rejection=_rejection(data, wire) if state == "rejected" else None,
    )


def _rejection(data: Mapping[str, Any], wire: Wire) -> ProviderError:
    errors = data.get("errors")
    if isinstance(errors, str):  # as some compatible servers have it
        errors = [{"message": errors}]
    problems = objects(errors.get("data") if isinstance(errors, dict) else errors)
    codes = " ".join(str(problem.get("code") or "") for problem in problems[:SHOWN_PROBLEMS])
    words = "; ".join(map(_problem, problems[:SHOWN_PROBLEMS])) or "it does not say why"
    if len(problems) > SHOWN_PROBLEMS:
        words += f"; and {len(problems) - SHOWN_PROBLEMS} more"
    words = redact(words, wire.key)[:1000]
    said = f"{codes} {words}"
    kind = UploadQuotaUsedUp if is_about_quota(said) else kind_of(400, said)
    return kind(f"provider {wire.provider.name} rejected upload {data.get('id')}: {words}")


def _problem(problem: Mapping[str, Any]) -> str:
    line = problem.get("line")
    place = f"line {line}: " if isinstance(line, int) else ""
    return f"{place}{problem.get('message') or problem.get('code') or 'no reason given'}"


def read_line(line: Mapping[str, Any], wire: Wire) -> ChatReply:
    """Reads the answer in a line of results; raises what it holds instead of one."""
    name = wire.provider.name
    response, error = line.get("response"), line.get("error")
    if not isinstance(response, dict):
        told = error if isinstance(error, dict) else {}
        code = str(told.get("code") or "")
        words = str(told.get("message") or code or "it gave neither an answer nor an error")
        words = redact(words, wire.key)[:500]
        raise _kind_of(code)(f"provider {name}: {words}")
    status, body = response.get("status_code"), response.get("body")
    if not isinstance(status, int) or status < 200:
        raise ServerFailed(f"provider {name} gave an answer with the status {status}")
    if status >= 300:
        raise failure(Answer(status, {}, json.dumps(body).encode()), wire.provider, wire.key)
    headers = {"x-request-id": str(response.get("request_id") or "")}
    return read_reply(body if isinstance(body, dict) else {}, headers, wire.provider)


def _kind_of(code: str) -> type[ProviderError]:
    """What became of a line that was not answered: servers have codes of their own for it."""
    if "expired" in code.lower():
        return UploadExpired
    return UploadCancelled if "cancel" in code.lower() else ServerFailed
