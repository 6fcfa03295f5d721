"""Reads `sentinel://` URLs: where to ask which Redis is the master.

    sentinel://[USER][:PASSWORD]@HOST[:26379],HOST[:26379],.../MASTER[/DATABASE]
        [?sentinel_password=..&sentinel_username=..]

The user and the password are those of Redis itself; Sentinels with a login of their own have it in
the query.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlsplit

SCHEME = "sentinel"
PORT = 26379
_LOGIN = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """What a URL says: where the Sentinels are, and what to ask them for."""

    hosts: tuple[tuple[str, int], ...]
    master: str
    database: int = 0
    username: str = ""
    password: str = ""
    login: tuple[tuple[str, str], ...] = ()

    def celery_url(self) -> str:
        """The same as Celery reads it: a URL for each Sentinel; the master is told apart."""
        login = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}@"
        user = login if self.username or self.password else ""
        return ";".join(
            f"{SCHEME}://{user}{_bracketed(host)}:{port}/{self.database}"
            for host, port in self.hosts
        )


def is_sentinel(url: str) -> bool:
    """Whether a URL names Sentinels."""
    return url.startswith(f"{SCHEME}://")


def parse_sentinels(url: str) -> SentinelUrl:
    """Reads a URL; raises ValueError that says what is wrong, without its passwords."""
    parts = urlsplit(url)
    user, _, places = parts.netloc.rpartition("@")
    username, _, password = user.partition(":")
    hosts = tuple(map(_host, places.split(",")))
    master, _, database = parts.path.strip("/").partition("/")
    if not master:
        raise ValueError("it names no master after its hosts, such as .../mymaster/0")
    if database and not database.isdecimal():
        raise ValueError("its database is no number")
    query = parse_qs(parts.query, keep_blank_values=True)
    if unknown := sorted(query.keys() - {*_LOGIN}):
        raise ValueError(f"it has an option that is not known: {unknown[0]}")
    return SentinelUrl(
        hosts,
        unquote(master),
        int(database or 0),
        unquote(username),
        unquote(password),
        tuple(
            (name.removeprefix("sentinel_"), query[name][-1]) for name in _LOGIN if name in query
        ),
    )


def _host(place: str) -> tuple[str, int]:
    host, colon, port = place.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = place, str(PORT)
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("its port is no number up to 65535")
    host = host.removeprefix("[").removesuffix("]")
    if not host:
        raise ValueError("it names no host")
    return host, int(port)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
