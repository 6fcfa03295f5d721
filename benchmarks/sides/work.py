"""What the items of the benchmarks do, the same on every side. Standard library only."""

from __future__ import annotations

import json
import time
from typing import Any

BURN_S = 0.05


def noop(item: dict[str, Any]) -> dict[str, Any]:
    return item


def size(item: dict[str, Any]) -> int:
    """Has the whole item at hand, and answers with a few bytes."""
    return len(item["text"])


def burn(item: dict[str, Any]) -> int:
    """Takes 50 ms of CPU, however busy the machine is."""
    end = time.process_time() + BURN_S
    while time.process_time() < end:
        sum(range(500))
    return int(item["number"])


def chat_body(number: int) -> dict[str, Any]:
    """The request of one HTTP item."""
    text = f"Say something about number {number}."
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def text_of(answer: bytes) -> str:
    """What the model said."""
    said: str = json.loads(answer)["choices"][0]["message"]["content"]
    return said


CPU = {"noop": noop, "size": size, "burn": burn}
