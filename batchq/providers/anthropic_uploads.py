"""The message batches of Anthropic: one request in, one stream of results out."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from batchq.endpoint import ProviderSpec
from batchq.errors import (
    BadRequest,
    ProviderError,
    ServerFailed,
    UploadCancelled,
    UploadExpired,
)
from batchq.ports import ChatReply
from batchq.providers.anthropic import base_url_of, build_body, headers_of, read_reply
from batchq.providers.failures import failure, read_key
from batchq.providers.http import Answer, write_json
from batchq.providers.results import match
from batchq.providers.wire import (
    CLOCK_SLACK_S,
    Wire,
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

LIMITS = UploadLimits(lines=100_000, bytes=256_000_000)
PATH = "/v1/messages/batches"
PAGE = 100
CREATION_S = 120.0
"""How much earlier than it was asked for an upload may be created: what clocks are off by."""
_STATES: Mapping[str, UploadState] = {"canceling": "cancelling", "ended": "ended"}
_UNTOUCHED: Mapping[str, type[ProviderError]] = {
    "expired": UploadExpired,
    "canceled": UploadCancelled,
}
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 408,
    "overloaded_error": 529,
}
TAG_PLACE = re.compile(rb'"custom_id"\s*:\s*"([\w-]{1,64})"')
_ENDED_COUNTS = ("succeeded", "errored", "canceled", "expired")


class AnthropicUploads:
    """Calls `/v1/messages/batches`; what a line asks is what `AnthropicMessages` asks online."""

    def limits(self, provider: ProviderSpec) -> UploadLimits:  # noqa: ARG002 (others may differ)
        """100,000 lines and 256 MB."""
        return LIMITS

    def size(self, line: UploadLine) -> int:
        """Bytes of a line, with what parts it from the next."""
        return len(_write(line)) + 1

    def create(self, provider: ProviderSpec, tag: str, lines: Iterable[UploadLine]) -> Upload:  # noqa: ARG002
        """Sends one request with all lines; only their ids can hold the tag."""
        wire = _wire(provider)
        return read_upload(wire.send(PATH, "application/json", _request(lines)), wire)

    def find(
        self,
        provider: ProviderSpec,
        tag: str,
        since: float,
        lines: int,
        known: Collection[str] = (),
    ) -> Upload | None:
        """Looks for one of so many lines; once it has ended, for the tag in its results."""
        wire = _wire(provider)
        after = ""
        while True:
            page, headers = wire.get(f"{PATH}?limit={PAGE}{after}")
            since_there = on_their_clock(since, headers)
            found = [read_upload(batch, wire) for batch in objects(page.get("data"))]
            for upload in found:
                is_right = upload.lines == lines and upload.id not in known
                is_new = upload.created_at >= since_there - CREATION_S
                if is_right and is_new and _may_have(wire, upload, tag):
                    return upload
            is_read = not found or found[-1].created_at < since_there - CLOCK_SLACK_S
            if is_read or not page.get("has_more"):
                return None
            after = f"&after_id={quote(found[-1].id, safe='')}"

    def poll(self, provider: ProviderSpec, upload: str) -> Upload:
        """Asks where an upload stands."""
        wire = _wire(provider)
        return read_upload(wire.get(_path(upload))[0], wire)

    def answers(
        self, provider: ProviderSpec, upload: str, schema: Mapping[str, Any] | None = None
    ) -> Iterator[UploadAnswer]:
        """Reads the results, once they are on the disk.

        They are asked for at our own address: the one that the provider names gets no key.
        """
        wire = _wire(provider)
        told = self.poll(provider, upload)
        if not told.is_final:
            raise BadRequest(f"upload {upload} of provider {provider.name} has not ended yet")
        with wire.fetched(f"{_path(upload)}/results") as results:
            yield from match(
                [results], told, provider.name, lambda line: read_line(line, wire, schema)
            )

    def cancel(self, provider: ProviderSpec, upload: str) -> Upload:
        """Cancels an upload, or tells how it ended."""
        wire = _wire(provider)
        try:
            return read_upload(wire.post(f"{_path(upload)}/cancel"), wire)
        except BadRequest:
            told = self.poll(provider, upload)
            if told.state == "running":
                raise
            return told


def _wire(provider: ProviderSpec) -> Wire:
    key = read_key(provider)
    return Wire(provider, base_url_of(provider), headers_of(key), key)


def _path(upload: str) -> str:
    return f"{PATH}/{quote(upload, safe='')}"


def _write(line: UploadLine) -> bytes:
    return write_json({"custom_id": line.id, "params": build_body(line.request)})


def _request(lines: Iterable[UploadLine]) -> Iterator[bytes]:
    before = b'{"requests":['
    for line in lines:
        yield before
        yield _write(line)
        before = b","
    yield b"]}"


def _may_have(wire: Wire, upload: Upload, tag: str) -> bool:
    """Whether an upload's lines have a tag; nobody can say before it has ended."""
    if upload.state != "ended":
        return True
    try:
        with wire.fetched(f"{_path(upload.id)}/results", lambda chunk: b"\n" in chunk) as results:
            for text in results.lines():
                found = TAG_PLACE.search(text)
                if found:
                    before, _, after = found[1].decode().partition(tag)
                    return not before and not after[:1].isalnum()  # r-1 is not r-10
    except BadRequest:
        return False  # its results are not there any more
    return False


def read_upload(data: Any, wire: Wire) -> Upload:
    """Reads where an upload stands; raises ServerFailed for what is none."""
    name = data.get("id") if isinstance(data, dict) else None
    if not isinstance(name, str) or not name:
        raise ServerFailed(
            f"provider {wire.provider.name} answered without an id: is base_url Anthropic's?"
        )
    counts = data.get("request_counts")
    counts = counts if isinstance(counts, dict) else {}
    ended = [read_count(counts.get(each)) for each in _ENDED_COUNTS]
    return Upload(
        id=name,
        state=_STATES.get(str(data.get("processing_status")), "running"),
        lines=read_count(counts.get("processing")) + sum(ended),
        answered=ended[0],
        failed=sum(ended[1:]),
        created_at=read_time(data.get("created_at")) or 0.0,
        expires_at=read_time(data.get("expires_at")),
    )


def read_line(line: Mapping[str, Any], wire: Wire, schema: Mapping[str, Any] | None) -> ChatReply:
    """Reads the answer in a line of results; raises what it holds instead of one."""
    provider = wire.provider
    found = line.get("result")
    result = found if isinstance(found, dict) else {}
    kind, message, error = str(result.get("type")), result.get("message"), result.get("error")
    if kind == "succeeded" and isinstance(message, dict):
        return read_reply(message, {}, provider, schema)
    if kind in _UNTOUCHED:
        words = {"expired": "the upload expired before this line", "canceled": "cancelled"}
        raise _UNTOUCHED[kind](f"provider {provider.name}: {words[kind]}")
    if kind == "errored" and isinstance(error, dict):
        inside = error.get("error")
        code = str(inside.get("type")) if isinstance(inside, dict) else ""
        status = _STATUSES.get(code, 500)
        raise failure(Answer(status, {}, json.dumps(error).encode()), provider, wire.key)
    raise ServerFailed(f"provider {provider.name} gave neither an answer nor an error")
