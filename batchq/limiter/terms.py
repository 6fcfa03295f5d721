"""What the scripts have to know of a provider's limits, written down once."""

from __future__ import annotations

import json
from functools import lru_cache

from batchq.limiter.pacing import paces_of
from batchq.plan import Limits

# The order in which the scripts read what is kept of a provider.
_FIELDS = (
    "pause",
    "breaker",
    "meter",
    "gap",
    "concurrency:learned",
    "concurrency:set",
    "granted",
    "waited",
    "reached",
    "kept",
    "swept",
    "paused",
)
_OF_EACH_LIMIT = ("", ":burst", ":large", ":idle", ":learned", ":told", ":set")


@lru_cache(maxsize=256)
def terms(limits: Limits, priority: float) -> str:
    """The limits as JSON: the cap (0: none), the run's weight, each rate, and fields to read."""
    rates = paces_of(limits)
    return json.dumps(
        {
            "cap": limits.concurrency or 0,
            "weight": priority,
            "adaptive": limits.adaptive,
            "limits": [[one.name, one.unit, one.amount, one.window_us, one.share] for one in rates],
            "fields": [*_FIELDS, *(one.name + part for one in rates for part in _OF_EACH_LIMIT)],
        }
    )
