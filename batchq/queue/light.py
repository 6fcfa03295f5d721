"""Says which items are so light that a slot may take their messages by itself (`queue.feeding`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchq.plan import StepPlan

LIGHT = "light"
"""The header of a message whose item a slot may take by itself."""
LIGHT_MARK = f'"{LIGHT}": true'
"""How such a message is known without being read: what people wrote has its quotes escaped."""
MAY_FEED = "may_feed"
"""What a worker adds to the headers of a message: whether its slot may go on by itself."""


def is_light(step: StepPlan) -> bool:
    """Whether items of a step may share a round trip: functions that nothing is measured of, that
    take no limit's turn and no host's place.
    """  # noqa: D205 (one sentence)
    spec = step.spec
    return (
        all(stage.kind == "task" for stage in spec.stages)
        and spec.stats is None
        and spec.resources is None
        and not spec.providers
    )


def may_go_on(headers: Mapping[str, Any] | None) -> bool:
    """Whether a slot may go on by itself after the item of a message."""
    found = headers or {}
    return bool(found.get(LIGHT) and found.get(MAY_FEED))


def as_ordinary(text: bytes) -> bytes:
    """The message, as one that a slot does not take by itself."""
    return text.replace(LIGHT_MARK.encode(), f'"{LIGHT}": false'.encode())
