"""One pooled HTTP session a process, with a deadline that holds whatever the server does."""

from __future__ import annotations

import http.client
import io
import os
import socket
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError

from batchq.errors import BadRequest, ConnectionFailed, ProviderTimeout, ServerFailed

POOL_SIZE = 512
CONNECT_TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024

_deadline: ContextVar[float] = ContextVar("deadline")
_sessions: dict[int, requests.Session] = {}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer that was read to its end. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def post(url: str, headers: Mapping[str, str], body: Any, timeout_s: float) -> Answer:
    """Posts JSON and reads the whole answer within `timeout_s`, dripping servers included.

    Raises ProviderTimeout, ConnectionFailed, ServerFailed (too large an answer) or BadRequest
    (a URL that is none). Redirects are not followed: they would carry the key elsewhere. The
    causes of errors are dropped, since they hold the request and with it the key.
    """
    token = _deadline.set(time.monotonic() + timeout_s)
    try:
        with _session().post(
            url,
            json=body,
            headers=dict(headers),
            timeout=(min(CONNECT_TIMEOUT_S, timeout_s), timeout_s),
            proxies=_proxies(url),
            verify=os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True,
            allow_redirects=False,
            stream=True,
        ) as response:
            content = response.raw.read(MAX_ANSWER_BYTES + 1, decode_content=True)
            if len(content) > MAX_ANSWER_BYTES:
                raise ServerFailed(f"the answer of {_host(url)} is larger than 32 MB")
            lower = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status_code, lower, content)
    except (requests.Timeout, ReadTimeoutError, TimeoutError):
        raise ProviderTimeout(f"no answer from {_host(url)} within {timeout_s:g} s") from None
    except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema,
            requests.exceptions.InvalidSchema):  # fmt: skip
        raise BadRequest(f"base_url gives {url!r}, which is no http:// or https:// URL") from None
    except requests.exceptions.SSLError as error:
        raise ConnectionFailed(f"no secure connection to {_host(url)}: {error}") from None
    except (requests.ConnectionError, HTTPError, OSError) as error:
        raise ConnectionFailed(f"no answer from {_host(url)}: {_reason(error)}") from None
    except requests.exceptions.InvalidJSONError:
        raise BadRequest("the request holds a value that is not JSON, such as NaN") from None
    finally:
        _deadline.reset(token)


def _session() -> requests.Session:
    # By process id: a fork must not use its parent's connections, nor close them.
    pid = os.getpid()
    return _sessions.get(pid) or _sessions.setdefault(pid, _new_session())


def _new_session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a .netrc would replace our key; proxies are asked for in `post`
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for prefix in ("http://", "https://"):
        session.mount(prefix, _Adapter(pool_connections=64, pool_maxsize=POOL_SIZE))
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


class _DeadlineReader(socket.SocketIO):
    """Reads from a socket until the deadline of the call that is under way.

    A socket's own timeout starts anew with every byte that a slow server drips.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, "r")
        sock._io_refs += 1  # type: ignore[attr-defined]  # as socket.makefile does
        self._connection = sock
        self._ends_at = _deadline.get(None)

    def readinto(self, buffer: Any) -> int | None:
        if self._ends_at is not None:
            left_s = self._ends_at - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("deadline passed")
            self._connection.settimeout(left_s)
        return super().readinto(buffer)


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_DeadlineReader(sock))


class _Connection(HTTPConnection):
    response_class = _DeadlineResponse


class _SecureConnection(HTTPSConnection):
    response_class = _DeadlineResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
