"""One pooled HTTP session a process, with a deadline that holds whatever the server does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import requests
from requests.utils import get_environ_proxies
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeout

from batchq.errors import (
    BadRequest,
    ConnectionFailed,
    ProviderTimeout,
    ServerFailed,
    StoreError,
)
from batchq.providers.patience import Patience, PatientAdapter, under_way
from batchq.providers.route import CONNECT_TIMEOUT_S, Route, bundle, find_route

POOL_SIZE = 4096
"""Connections to a server that are kept: no fewer than the slots of a process may be."""
MOST_ROUTES = 256
MAX_ANSWER_BYTES = 32 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
SLOWEST_BYTES_S = 100_000.0  # of a file; slower ones are given up
LONGEST_DOWNLOAD_S = 3600.0  # of a file whose size nobody tells

_sessions: dict[int, requests.Session] = {}
_routes: dict[tuple[int, str, str | bool], Route] = {}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer that was read to its end. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Download:
    """An answer whose body went into a file, all of it unless the connection broke off."""

    answer: Answer
    is_whole: bool


class _Sending:
    """A file's bytes as the body of a request: read piece by piece, and counted before."""

    def __init__(self, file: BinaryIO, length: int, patience: Patience) -> None:
        self._file = file
        self._length = length
        self._patience = patience

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:  # what tells a body that is streamed from others
        while chunk := self.read(CHUNK_BYTES):
            yield chunk

    def read(self, size: int = -1) -> bytes:
        """Reads the next piece; a server that takes none in for long is not waited for."""
        self._patience.next_pause_s()
        return self._file.read(size)


def post(url: str, headers: Mapping[str, str], body: Any, timeout_s: float) -> Answer:
    """Posts JSON and reads the whole answer within `timeout_s`, dripping servers included.

    Raises ProviderTimeout, ConnectionFailed, ServerFailed (too large an answer) or BadRequest
    (a URL that is none). Redirects are not followed: they would carry the key elsewhere. The
    causes of errors are dropped, since they hold the request and with it the key.
    """
    with _explained(url, Patience(timeout_s)):
        response = _post(_route(url), headers, write_json(body), timeout_s)
        try:
            content = _content(response, url)
        except BaseException:
            response.close()  # what is left of it must not be taken for the next answer
            raise
        response.release_conn()
        return Answer(response.status, _lower(response.headers), content)


def write_json(value: Any) -> bytes:
    """Writes what a provider is asked; raises BadRequest for what is not JSON."""
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError):
        raise BadRequest("the request holds a value that is not JSON, such as NaN") from None


def get(url: str, headers: Mapping[str, str], timeout_s: float) -> Answer:
    """Gets a URL, as `post` does."""
    with _sent("GET", url, headers, Patience(timeout_s)) as response:
        return _read(response, url)


def post_file(url: str, headers: Mapping[str, str], body: BinaryIO, timeout_s: float) -> Answer:
    """Posts a file from its present place on, without reading it into memory.

    Each read and write may take `timeout_s`, and the whole as much more as it has bytes.
    """
    start = body.tell()
    length = body.seek(0, os.SEEK_END) - start
    body.seek(start)
    patience = Patience(timeout_s, timeout_s + length / SLOWEST_BYTES_S)
    with _sent("POST", url, headers, patience, data=_Sending(body, length, patience)) as response:
        return _read(response, url)


def never(chunk: bytes) -> bool:  # noqa: ARG001 (whatever it is)
    """Says that there is more to read."""
    return False


def download(
    url: str,
    headers: Mapping[str, str],
    target: BinaryIO,
    timeout_s: float,
    *,
    is_enough: Callable[[bytes], bool] = never,
) -> Download:
    """Reads an answer into a file, to its end or until a chunk of it `is_enough`.

    An answer that is not 200 is read as others are, into `body`. One that breaks off half way is
    kept as far as it came. Each read may take `timeout_s`, and the whole as much more as it has
    bytes. Raises StoreError where the file cannot be written.
    """
    patience = Patience(timeout_s, LONGEST_DOWNLOAD_S)
    with _sent("GET", url, headers, patience) as response:
        if response.status_code != 200:
            return Download(_read(response, url), is_whole=True)
        found = Answer(response.status_code, _lower(response.headers), b"")
        length = found.headers.get("content-length", "")
        if length.isdecimal():
            patience.lasts_at_most(timeout_s + int(length) / SLOWEST_BYTES_S)
        while True:
            try:
                # Unlike `read`, it keeps nothing back that came before the connection broke.
                chunk = response.raw.read1(CHUNK_BYTES, decode_content=True)
            except (ProtocolError, ConnectionError):
                return Download(found, is_whole=False)
            try:
                target.write(chunk)
            except OSError as error:
                raise StoreError(f"results cannot be kept: {error.strerror or error}") from None
            if not chunk or is_enough(chunk):
                return Download(found, is_whole=True)


@contextmanager
def _sent(
    method: str, url: str, headers: Mapping[str, str], patience: Patience, **payload: Any
) -> Iterator[requests.Response]:
    """Makes a request; what goes wrong in the block, in reading the answer, is explained, too."""
    with (
        _explained(url, patience),
        _session().request(
            method,
            url,
            headers=dict(headers),
            timeout=(min(CONNECT_TIMEOUT_S, patience.pause_s), patience.pause_s),
            proxies=_proxies(url),
            verify=bundle(),
            allow_redirects=False,
            stream=True,
            **payload,
        ) as response,
    ):
        yield response


@contextmanager
def _explained(url: str, patience: Patience) -> Iterator[None]:
    """Turns whatever goes wrong with a call into our errors."""
    token = under_way.set(patience)
    try:
        yield
    except NewConnectionError as error:  # which is a timeout, too, in name
        raise ConnectionFailed(f"no answer from {_host(url)}: {_reason(error)}") from None
    except (requests.Timeout, HTTPTimeout, TimeoutError):
        raise ProviderTimeout(
            f"no answer from {_host(url)} within {patience.pause_s:g} s"
        ) from None
    except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema,
            requests.exceptions.InvalidSchema):  # fmt: skip
        raise BadRequest(f"base_url gives {url!r}, which is no http:// or https:// URL") from None
    except (requests.exceptions.SSLError, SSLError) as error:
        raise ConnectionFailed(f"no secure connection to {_host(url)}: {error}") from None
    except (requests.ConnectionError, HTTPError, OSError) as error:
        raise ConnectionFailed(f"no answer from {_host(url)}: {_reason(error)}") from None
    finally:
        under_way.reset(token)


def _post(
    route: Route, headers: Mapping[str, str], body: bytes, timeout_s: float
) -> BaseHTTPResponse:
    try:
        return route.post(headers, body, timeout_s)
    except ValueError as error:
        if isinstance(error, HTTPError):
            raise
        # Its text holds the header, which may be the key.
        raise BadRequest("a header, such as the key's, holds what no header may hold") from None


def _read(response: requests.Response, url: str) -> Answer:
    return Answer(response.status_code, _lower(response.headers), _content(response.raw, url))


def _content(response: BaseHTTPResponse, url: str) -> bytes:
    content = response.read(MAX_ANSWER_BYTES + 1, decode_content=True)
    if len(content) > MAX_ANSWER_BYTES:
        raise ServerFailed(f"the answer of {_host(url)} is larger than 32 MB")
    return content


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _session() -> requests.Session:
    # By process id: a fork must not use its parent's connections, nor close them.
    pid = os.getpid()
    return _sessions.get(pid) or _sessions.setdefault(pid, _new_session())


def _route(url: str) -> Route:
    key = (os.getpid(), url, bundle())
    if (found := _routes.get(key)) is None:
        if len(_routes) >= MOST_ROUTES:
            _routes.clear()
        found = _routes[key] = find_route(_session(), url, _proxies(url), verify=bundle())
    return found


def _new_session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a .netrc would replace our key; proxies are asked for in `post`
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for prefix in ("http://", "https://"):
        session.mount(prefix, PatientAdapter(pool_connections=64, pool_maxsize=POOL_SIZE))
    return session


@lru_cache(maxsize=64)
def _proxies(url: str) -> dict[str, str]:
    host = urlsplit(url).hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        return {}
    return dict(get_environ_proxies(url))


def _host(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or url


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words, without object addresses."""
    while True:
        reason = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
        if not isinstance(reason, BaseException):
            break
        error = reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).rpartition(": ")[2] or type(error).__name__
