"""How a URL is reached: found out once, and not for each of thousands of calls to it.

`requests` prepares every request anew: half of what a call takes of the processor. Proxies, TLS
and logins in URLs stay its matter.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import requests
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Retry, Timeout

CONNECT_TIMEOUT_S = 10.0
ONCE = Retry(total=False)
"""Errors come as they are: attempts are counted elsewhere."""


@dataclass(frozen=True, slots=True)
class Route:
    """The connections to a URL's server, and what every request to it begins with."""

    pool: HTTPConnectionPool
    target: str
    headers: Mapping[str, str]
    login: Mapping[str, str]  # of the URL itself, which goes before any other

    def post(self, headers: Mapping[str, str], body: bytes, pause_s: float) -> BaseHTTPResponse:
        """Posts JSON; the answer's body is still to be read. Raises urllib3's errors."""
        return self.pool.urlopen(
            "POST",
            self.target,
            body=body,
            headers={
                **self.headers,
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **headers,
                **self.login,
            },
            timeout=_timeout(pause_s),
            retries=ONCE,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
        )


def find_route(
    session: requests.Session, url: str, proxies: dict[str, str], *, verify: str | bool
) -> Route:
    """Finds the way to a URL; raises the errors of requests for one that makes no sense."""
    prepared = session.prepare_request(requests.Request("POST", url))
    assert prepared.url is not None
    adapter: Any = session.get_adapter(prepared.url)
    pool = adapter.get_connection_with_tls_context(prepared, verify, proxies=proxies)
    adapter.cert_verify(pool, prepared.url, verify, None)
    headers = {name: value for name, value in prepared.headers.items() if name != "Content-Length"}
    login = {name: value for name, value in headers.items() if name == "Authorization"}
    return Route(pool, adapter.request_url(prepared, proxies), headers, login)


def bundle() -> str | bool:
    """The certificates that servers are checked by, as curl and requests are told of them."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True


@lru_cache(maxsize=256)
def _timeout(pause_s: float) -> Timeout:
    return Timeout(connect=min(CONNECT_TIMEOUT_S, pause_s), read=pause_s)
