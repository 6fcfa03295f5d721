"""Requests to a provider's batch endpoints, with files that never are in memory as a whole."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, TypeVar

from batchq.endpoint import ProviderSpec
from batchq.errors import (
    ConnectionFailed,
    ProviderError,
    ServerFailed,
    StoreError,
    UploadQuotaUsedUp,
)
from batchq.providers.failures import failure, read_date, read_json
from batchq.providers.http import Answer, download, get, never, post, post_file
from batchq.providers.results import Results

CLOCK_SLACK_S = 3600.0
"""How far back a list is read beyond the moment that is looked for: clocks are wrong at times."""
TRIES = 3
"""So often is asked at once, of a provider that fails now and then."""
T = TypeVar("T")
_ENQUEUED = re.compile(
    r"enqueued.{0,20}\btokens?\b|\btoken_limit_exceeded\b|\bbatch\b.{0,60}\bqueue\b", re.I | re.S
)


@dataclass(frozen=True, slots=True)
class Wire:
    """Where a provider is and how it knows us. Paths begin with a slash."""

    provider: ProviderSpec
    base_url: str
    headers: Mapping[str, str]
    key: str

    def get(self, path: str) -> tuple[dict[str, Any], Mapping[str, str]]:
        """Gets an object, and the headers that came with it."""

        def ask() -> tuple[dict[str, Any], Mapping[str, str]]:
            answer = get(self.base_url + path, self.headers, self.provider.timeout_s)
            return read_json(answer, self.provider, self.key), answer.headers

        return _insist(ask)

    def post(self, path: str, body: Any = None) -> dict[str, Any]:
        """Posts JSON and gets an object."""
        answer = post(self.base_url + path, self.headers, body, self.provider.timeout_s)
        return self._read(answer)

    def send(self, path: str, content_type: str, parts: Iterable[bytes]) -> dict[str, Any]:
        """Posts the parts one after the other, once all of them are on the disk."""
        headers = {**self.headers, "content-type": content_type}
        with _temporary_file() as file:
            for part in parts:
                with _told():
                    file.write(part)
            with _told():
                file.seek(0)
            answer = post_file(self.base_url + path, headers, file, self.provider.timeout_s)
        return self._read(answer)

    def _read(self, answer: Answer) -> dict[str, Any]:
        try:
            return read_json(answer, self.provider, self.key)
        except ProviderError as error:
            if not is_about_quota(str(error)):
                raise
            raise UploadQuotaUsedUp(
                str(error), status=error.status, retry_after_s=error.retry_after_s
            ) from None

    @contextmanager
    def fetched(self, path: str, is_enough: Callable[[bytes], bool] = never) -> Iterator[Results]:
        """Gets a file of results; raises ProviderError if nothing of it is to be had."""
        with _temporary_file() as file:

            def ask() -> bool:
                url, timeout_s = self.base_url + path, self.provider.timeout_s
                got = download(url, self.headers, file, timeout_s, is_enough=is_enough)
                if got.answer.status != 200:
                    raise failure(got.answer, self.provider, self.key)
                return got.is_whole

            is_whole = _insist(ask)
            with _told():
                file.seek(0)
            yield Results(file, is_whole)


def _insist(ask: Callable[[], T]) -> T:
    """Asks again at once what changes nothing: the next look may be a minute away."""
    for _ in range(TRIES - 1):
        try:
            return ask()
        except (ConnectionFailed, ServerFailed):
            continue
    return ask()


@contextmanager
def _temporary_file() -> Iterator[BinaryIO]:
    with _told():
        file = tempfile.TemporaryFile(prefix="batchq-")  # noqa: SIM115 (closing may fail, too)
    try:
        yield file
    finally:
        with suppress(OSError):  # what could not be written was told before
            file.close()


@contextmanager
def _told() -> Iterator[None]:
    """Tells people what is wrong with a temporary file."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StoreError(
            f"an upload needs room in a temporary folder: {reason} (TMPDIR names another one)"
        ) from None


def is_about_quota(words: str) -> bool:
    """Whether the provider refuses an upload as others have not ended yet."""
    return _ENQUEUED.search(words) is not None


def on_their_clock(moment: float, headers: Mapping[str, str]) -> float:
    """A moment of our clock on that of the provider, as far as its answer tells it."""
    theirs = read_date(headers.get("date", ""))
    return moment if theirs is None else moment + theirs.timestamp() - time.time()


def read_time(value: Any) -> float | None:
    """Reads a moment: seconds since the epoch, or RFC 3339; None if it is neither."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        then = datetime.fromisoformat(value)
        return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, TypeError, ValueError):
        return None


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none if it is no list."""
    return [found for found in value if isinstance(found, dict)] if isinstance(value, list) else []


def read_count(value: Any) -> int:
    """Reads a count that may be missing."""
    return value if isinstance(value, int) and value > 0 else 0
