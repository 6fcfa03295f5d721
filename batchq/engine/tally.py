"""Counts what a process did, for metrics; each heartbeat takes the counts to Redis.

The metrics that exist are in `METRICS`, with their labels. A label is one of few words, never the
id of an item or of a run.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass

MAX_SERIES = 2_000
"""So many combinations of labels a process counts apart; what comes later counts as OTHER."""
OTHER = "other"

Key = tuple[str, ...]
"""A metric's name and the values of its labels, in their order."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Something that is counted. With `buckets` it is a histogram of seconds."""

    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

METRICS: Mapping[str, Metric] = {
    "items_ended": Metric(
        "Items that ended; kind is that of the error of a failed one.", ("state", "kind")
    ),
    "item_retries": Metric("Tries of items beyond the first."),
    "item_seconds": Metric("Time from an item's start to its end.", ("state",), SECONDS),
    "answers_cached": Metric("Answers that were taken from the cache.", ("provider",)),
    "calls": Metric("Calls to providers, by what they showed of it.", ("provider", "verdict")),
    "call_seconds": Metric("Time that a provider took for a call.", ("provider",), SECONDS),
    "waits": Metric("Times that a call was told to wait for a limit.", ("provider", "limit")),
    "wait_seconds": Metric("Time that calls had to wait for a limit.", ("provider", "limit")),
    "tokens": Metric("Tokens that were paid.", ("provider", "direction")),
    "cost_usd": Metric("Dollars that calls cost, where their price is known.", ("provider",)),
    "decisions": Metric("What coordinators decided about batches.", ("decision",)),
    "unpriced_calls": Metric("Calls whose price nobody knows.", ("provider",)),
}


_all: weakref.WeakSet[Tally] = weakref.WeakSet()  # a fork copies them, and what they count


class Tally:
    """Sums by metric and labels; safe for threads. A fork begins anew.

    The key of a histogram ends with the upper bound of a bucket, or with `sum`.
    """

    def __init__(self) -> None:
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._totals: dict[Key, float] = {}
        self._drained: dict[Key, float] = {}

    def add(self, name: str, *labels: str, amount: float = 1.0) -> None:
        """Counts `amount` more; labels are in the order of `METRICS`."""
        assert len(labels) == len(METRICS[name].labels), name
        with self._lock:
            self._add((name, *labels), amount)

    def observe(self, name: str, *labels: str, seconds: float) -> None:
        """Counts one more duration of a histogram."""
        metric = METRICS[name]
        bucket = next((one for one in metric.buckets if seconds <= one), math.inf)
        with self._lock:
            self._add((name, *labels, f"{bucket:g}"), 1.0)
            self._add((name, *labels, "sum"), seconds)

    def _add(self, key: Key, amount: float) -> None:
        if key not in self._totals and len(self._totals) >= MAX_SERIES:
            last = key[-1:] if METRICS[key[0]].buckets else ()
            key = (key[0], *(OTHER for _ in METRICS[key[0]].labels), *last)
        self._totals[key] = self._totals.get(key, 0.0) + amount

    def totals(self) -> dict[Key, float]:
        """All that was counted since the process began."""
        with self._lock:
            return dict(self._totals)

    def drain(self) -> dict[Key, float]:
        """What was counted since the last time, for whoever keeps it."""
        with self._lock:
            grown = {
                key: amount - self._drained.get(key, 0.0)
                for key, amount in self._totals.items()
                if amount != self._drained.get(key)
            }
            self._drained = dict(self._totals)
            return grown

    def take_back(self, grown: Mapping[Key, float]) -> None:
        """Undoes a drain whose counts could not be kept."""
        with self._lock:
            for key, amount in grown.items():
                self._drained[key] = self._drained.get(key, 0.0) - amount


def _begin_anew() -> None:
    for one in list(_all):
        one._begin()


os.register_at_fork(after_in_child=_begin_anew)
