"""What the scripts have to know of a provider's limits, written down once."""

from __future__ import annotations

import json

from batchq.endpoint import Limits
from batchq.limiter.pacing import paces_of


def terms(limits: Limits, priority: float) -> str:
    """The limits as JSON: the cap (0: none), the run's weight, and each rate."""
    rates = paces_of(limits)
    return json.dumps(
        {
            "cap": limits.concurrency or 0,
            "weight": priority,
            "adaptive": limits.adaptive,
            "limits": [[one.name, one.unit, one.amount, one.window_us, one.share] for one in rates],
        },
        separators=(",", ":"),
    )
