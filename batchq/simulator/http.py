"""HTTP/1.1 on asyncio: as much as API clients use, strict about the rest, and quick.

Tornado, which comes with Flower, answered about half as many calls a second with the same
provider behind it, and what is measured against a simulator should not be the simulator.
Nothing here is for the open internet: there are limits on sizes, but none on slowness.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 320 * 1024 * 1024  # a batch may have 256 MB
MAX_CHUNK_LINE_BYTES = 1024
REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/(\d)\.(\d)")
HEADER_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*?)[ \t]*")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
REASONS = {status.value: status.phrase for status in HTTPStatus} | {529: "Overloaded"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request. The names of `headers` are in lower case; `path` is without the query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    query: Mapping[str, str] = field(default_factory=dict)


class Malformed(Exception):
    """Raised when bytes are no request that can be answered; the connection is then closed."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Head:
    """All of a request but its body. `length` is None where the body comes in chunks."""

    method: str
    path: str
    headers: Mapping[str, str]
    length: int | None
    keeps_alive: bool
    query: str = ""

    @property
    def awaits_go_ahead(self) -> bool:
        """Whether the client sends its body only after `100 Continue`."""
        return self.headers.get("expect", "").lower() == "100-continue"


def read_head(raw: bytes) -> Head:
    """Reads request line and headers, without the empty line after them."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    line = REQUEST_LINE.fullmatch(first)
    if line is None:
        raise Malformed(400, "the request line is malformed")
    method, target, major, minor = line.groups()
    if major != "1":
        raise Malformed(505, "HTTP/1.1 is spoken here")
    headers = _read_headers(lines)
    connection = headers.get("connection", "").lower()
    return Head(
        method=method,
        path=target.partition("?")[0],
        query=target.partition("?")[2],
        headers=headers,
        length=_body_length(headers),
        keeps_alive="keep-alive" in connection if minor == "0" else "close" not in connection,
    )


def _read_headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        header = HEADER_LINE.fullmatch(line)
        if header is None:
            raise Malformed(400, "a header line is malformed")
        name, value = header[1].lower(), header[2]
        if name in headers:
            if name in ("content-length", "transfer-encoding", "host"):
                raise Malformed(400, f"{name} is there twice")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers


def _body_length(headers: Mapping[str, str]) -> int | None:
    encoding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if encoding is not None:
        if length is not None:
            raise Malformed(400, "content-length and transfer-encoding exclude each other")
        if encoding.lower() != "chunked":
            raise Malformed(501, f"transfer-encoding {encoding} is not known here")
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()):
        raise Malformed(400, "content-length is not a number")
    if len(length) > 15 or int(length) > MAX_BODY_BYTES:
        raise Malformed(413, f"a body may have {MAX_BODY_BYTES} bytes")
    return int(length)


class ChunkedBody:
    """Puts a body together from its chunks as they come."""

    def __init__(self) -> None:
        self.content = bytearray()
        self._left: int | None = None  # of the chunk that is being read
        self._is_in_trailer = False

    def feed(self, buffer: bytearray) -> bool:
        """Takes what it can use off the front of `buffer`; True at the end of the body."""
        while True:
            if self._left is not None:
                if len(buffer) < self._left + 2:
                    return False
                if buffer[self._left : self._left + 2] != b"\r\n":
                    raise Malformed(400, "a chunk is longer than it says")
                self.content += buffer[: self._left]
                del buffer[: self._left + 2]
                self._left = None
            line = self._take_line(buffer)
            if line is None:
                return False
            if self._is_in_trailer:
                if not line:
                    return True
                continue
            self._start_chunk(line)

    def _start_chunk(self, line: bytes) -> None:
        size = CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise Malformed(400, "the size of a chunk is malformed")
        length = int(size[1], 16)
        if len(self.content) + length > MAX_BODY_BYTES:
            raise Malformed(413, f"a body may have {MAX_BODY_BYTES} bytes")
        self._is_in_trailer = length == 0
        self._left = length or None

    @staticmethod
    def _take_line(buffer: bytearray) -> bytes | None:
        end = buffer.find(b"\r\n", 0, MAX_CHUNK_LINE_BYTES)
        if end < 0:
            if len(buffer) >= MAX_CHUNK_LINE_BYTES:
                raise Malformed(400, "a line between chunks is too long")
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        return line


class Connection(asyncio.Protocol):
    """One client. Requests are handled one at a time, in the order in which they came.

    `handle` gets each request and must see to it that `respond` or `drop` is called once.
    """

    def __init__(self, handle: Callable[[Request, Connection], None]) -> None:
        self._handle = handle
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._head: Head | None = None
        self._chunks: ChunkedBody | None = None
        self._is_busy = False
        self._is_advancing = False
        self._is_writable = True
        self.on_lost: Callable[[], None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the client is still there, as far as one can know."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts to listen to a client."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's name)
        """Tells whoever prepares an answer that nobody waits for it."""
        self._transport = None
        lost, self.on_lost = self.on_lost, None
        if lost is not None:
            lost()

    def data_received(self, data: bytes) -> None:
        """Takes bytes in; those after the request that is handled wait their turn."""
        self._buffer += data
        if self._is_busy and len(self._buffer) > MAX_HEAD_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._advance()

    def pause_writing(self) -> None:
        """Waits with further requests until the client has read its answers."""
        self._is_writable = False

    def resume_writing(self) -> None:
        """Goes on with the requests that waited."""
        self._is_writable = True
        self._advance()

    def respond(
        self, status: int, headers: Mapping[str, str], body: bytes, *, is_cut: bool = False
    ) -> None:
        """Answers the request that is being handled; closes half way through if `is_cut`."""
        head, self._head = self._head, None
        self._is_busy = False
        if self._transport is None or head is None:
            return
        keeps_alive = head.keeps_alive and not is_cut
        shown = len(body) // 2 if is_cut else len(body)
        shown = 0 if head.method == "HEAD" else shown
        self._write(status, headers, body, keeps_alive=keeps_alive, shown=shown)
        if not keeps_alive:
            self._transport.close()
            return
        self._transport.resume_reading()
        self._advance()

    def drop(self) -> None:
        """Closes the connection without an answer."""
        self._is_busy = False
        if self._transport is not None:
            self._transport.abort()

    def _advance(self) -> None:
        """Handles the requests that are complete; an answer given at once does not recurse."""
        if self._is_advancing:
            return
        self._is_advancing = True
        try:
            while not self._is_busy and self._is_writable and self.is_open:
                request = self._take_request()
                if request is None:
                    return
                self._is_busy = True
                self._handle(request, self)
        except Malformed as error:
            self._write_malformed(error)
        finally:
            self._is_advancing = False

    def _take_request(self) -> Request | None:
        if self._head is None and not self._take_head():
            return None
        head = self._head
        assert head is not None
        if self._chunks is not None:
            if not self._chunks.feed(self._buffer):
                return None
            body = bytes(self._chunks.content)
            self._chunks = None
        else:
            length = head.length or 0
            if len(self._buffer) < length:
                return None
            body = bytes(self._buffer[:length])
            del self._buffer[:length]
        query = dict(parse_qsl(head.query)) if head.query else {}
        return Request(head.method, head.path, head.headers, body, query)

    def _take_head(self) -> bool:
        while self._buffer.startswith(b"\r\n"):  # allowed between requests
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        if end < 0:
            if len(self._buffer) >= MAX_HEAD_BYTES:
                raise Malformed(431, f"the headers may have {MAX_HEAD_BYTES} bytes")
            return False
        head = read_head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        self._head = head
        self._chunks = ChunkedBody() if head.length is None else None
        is_body_missing = head.length is None or len(self._buffer) < head.length
        if head.awaits_go_ahead and is_body_missing and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _write_malformed(self, error: Malformed) -> None:
        if self._transport is None:
            return
        body = f"{error}\n".encode()
        headers = {"content-type": "text/plain"}
        self._write(error.status, headers, body, keeps_alive=False, shown=len(body))
        self._transport.close()

    def _write(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        keeps_alive: bool,
        shown: int,
    ) -> None:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines.append(f"content-length: {len(body)}")
        lines.append(f"connection: {'keep-alive' if keeps_alive else 'close'}")
        text = "\r\n".join(lines) + "\r\n\r\n"
        assert self._transport is not None
        self._transport.write(text.encode("latin-1") + body[:shown])
