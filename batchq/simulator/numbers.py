"""Numbers within the bounds of a JSON Schema."""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import Any

SHARES = ("confidence", "probability", "score", "likelihood", "certainty", "weight")
TRIES = 100


def draw_integer(schema: Mapping[str, Any], random: Random) -> int:
    """Draws a whole number in range; 0 to 100 where the schema leaves it open.

    Raises:
        ValueError: if the range is empty.
    """
    low, high = _bounds(schema, 0, 100)
    step = schema.get("multipleOf", 1)
    if isinstance(step, float) and not step.is_integer():
        return int(_multiple(low, high, step, random, schema, whole=True))
    first = math.ceil(low / step)
    last = math.floor(high / step)
    if first * step == schema.get("exclusiveMinimum"):
        first += 1
    if last * step == schema.get("exclusiveMaximum"):
        last -= 1
    if first > last:
        raise ValueError("no whole number is in the range")
    return int(random.randint(first, last) * step)


def draw_number(schema: Mapping[str, Any], name: str, random: Random) -> float | int:
    """Draws a number in range, with two decimals where these fit.

    Left open, it is 0 to 1 for names such as `confidence`, else 0 to 100.

    Raises:
        ValueError: if the range is empty.
    """
    is_share = any(word in name.lower() for word in SHARES)
    low, high = _bounds(schema, 0.0, 1.0 if is_share else 100.0)
    if low > high:
        raise ValueError("no number is in the range")
    if "multipleOf" in schema:
        return _multiple(low, high, schema["multipleOf"], random, schema)
    exact = low + (high - low) * (0.05 + 0.9 * random.random())
    for value in (round(exact, 2), exact, low, high):
        if low <= value <= high and not _is_excluded(value, schema):
            return value
    raise ValueError("no number is in the range")


def _bounds(schema: Mapping[str, Any], low: float, high: float) -> tuple[float, float]:
    """The closed range, which the excluded ends still belong to."""
    lows = [schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema]
    highs = [schema[key] for key in ("maximum", "exclusiveMaximum") if key in schema]
    width = high - low
    if lows and highs:
        return max(lows), min(highs)
    if lows:
        return max(lows), max(high, max(lows) + width)
    if highs:
        return min(low, min(highs) - width), min(highs)
    return low, high


def _is_excluded(value: float, schema: Mapping[str, Any]) -> bool:
    return value == schema.get("exclusiveMinimum") or value == schema.get("exclusiveMaximum")


def _multiple(
    low: float,
    high: float,
    step: float,
    random: Random,
    schema: Mapping[str, Any],
    *,
    whole: bool = False,
) -> float | int:
    """Draws a multiple that also a division of floats takes for one (0.3 / 0.1 is not 3)."""
    first, last = math.ceil(low / step), math.floor(high / step)
    if first > last:
        raise ValueError(f"no multiple of {step} is in the range")
    for _ in range(TRIES):
        value = random.randint(first, last) * step
        is_multiple = (value / step).is_integer() if isinstance(step, float) else True
        is_in_range = low <= value <= high and not _is_excluded(value, schema)
        if is_multiple and is_in_range and (not whole or float(value).is_integer()):
            return int(value) if whole else value
    raise ValueError(f"no multiple of {step} was found in the range")
