"""Rate limits and leases within one process: for tests, and for runs without a broker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from batchq.endpoint import ProviderSpec
from batchq.limiter.book import Book, Meter
from batchq.limiter.desk import check_limit
from batchq.limiter.events import describe
from batchq.limiter.keys import provider_key
from batchq.limiter.pacing import check_size
from batchq.limiter.reserving import Request
from batchq.limiter.settling import Settlement
from batchq.ports import Feedback, Grant, Reservation

log = logging.getLogger(__name__)

_NOTHING = Feedback()


class MemoryLimiter:
    """The twin of RedisLimiter: the same decisions, on a clock that is handed in (seconds)."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # A machine may just have started: time 0 must lie long ago for every limit.
        self._origin_us = 10**15 - clock() * 1e6
        self._books: dict[str, Book] = {}

    def reserve(self, asked: Reservation) -> Grant:
        """Takes one request, the tokens and a lease, or nothing of these; see ports.Limiter."""
        check_size(asked.provider, asked.tokens)
        with self._lock:
            book, now = self._book(provider_key(asked.provider)), self._now()
            book.given = {rate.name: rate.amount for rate in asked.provider.limits.rates}
            book.leases = {name: times for name, times in book.leases.items() if times[1] > now}
            if asked.lease in book.leases:
                return Grant(0.0)
            return Request(book, asked, now).decide()

    def settle(self, asked: Reservation, used: int, feedback: Feedback = _NOTHING) -> float:
        """Returns the lease, corrects the limits by what the answer told; see ports.Limiter."""
        with self._lock:
            book, now = self._book(provider_key(asked.provider)), self._now()
            start, expiry = book.leases.pop(asked.lease, (0.0, 0.0))
            if expiry <= now:
                return 0.0
            ended = Settlement(book, asked, used, feedback, start, now)
            ended.take()
            for event in ended.events:
                log.warning("%s", describe(asked.provider.name, event))
            return (now - book.breaker.since) / 1e6 if book.breaker.opens else 0.0

    def pause(self, provider: ProviderSpec, seconds: float) -> None:
        """Lets nobody start a call to this provider for so long; never shortens a pause."""
        with self._lock:
            book, now = self._book(provider_key(provider)), self._now()
            if now + seconds * 1e6 > book.paused_until:
                book.paused_until, book.paused = now + seconds * 1e6, now

    def set_limits(self, key: str, **limits: float | None) -> None:
        """Sets limits by hand until they are unset with None; takes effect at once.

        What was granted counts as much of the new amount as it did of the old one. Raises
        UsageError for a limit that makes no sense.
        """
        for name, amount in limits.items():
            check_limit(name, amount)
        with self._lock:
            book, now = self._book(key), self._now()
            for name, amount in limits.items():
                if name == "concurrency":
                    book.most_in_flight, book.flight = amount or 0.0, None
                else:
                    book.set_rate(name, amount or 0.0, now)

    def _now(self) -> float:
        return float(round(self._clock() * 1e6 + self._origin_us))

    def _book(self, key: str) -> Book:
        found = self._books.get(key)
        if found is None:
            now = self._now()
            found = self._books[key] = Book(Meter(now, now))
        return found
