"""Says which messages a slot may take by itself: those of light items (`queue.feeding`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from batchq.plan import StepPlan

LIGHT = "light"
"""The header of a message whose item a slot may take by itself."""
LIGHT_MARK = f'"{LIGHT}": true'
"""How such a message is known without being read: what people wrote has its quotes escaped."""
NO_ETA = '"eta": null'
"""How one is known that may run at once."""
MAY_FEED = "may_feed"
"""What a worker adds to the headers of a message: whether its slot may go on by itself."""


def is_light(step: StepPlan) -> bool:
    """Whether a slot may take items of a step: none is measured, takes a part of its host, holds
    its slot while a limit makes it wait, or is looked for in uploads.
    """  # noqa: D205 (one sentence)
    spec = step.spec
    return (
        spec.stats is None
        and spec.resources is None
        and not spec.providers
        and spec.mode == "online"
    )


def may_go_on(headers: Mapping[str, Any] | None) -> bool:
    """Whether a slot may go on by itself after the item of a message."""
    found = headers or {}
    return bool(found.get(LIGHT) and found.get(MAY_FEED))


def as_ordinary(text: bytes) -> bytes:
    """The message, as one that a slot does not take by itself."""
    return text.replace(LIGHT_MARK.encode(), f'"{LIGHT}": false'.encode())


def as_later(text: bytes, wait_s: float) -> bytes:
    """The message, as one that a worker keeps for so long before it runs its item."""
    eta = (datetime.now(UTC) + timedelta(seconds=wait_s)).isoformat()
    return text.replace(NO_ETA.encode(), f'"eta": "{eta}"'.encode(), 1)
