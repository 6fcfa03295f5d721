"""Reads what the headers of an answer tell of the provider's limits, and what a refusal names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from batchq.endpoint import Unit
from batchq.ports import Quota

_UNITS: tuple[Unit, ...] = ("requests", "tokens")
_LARGEST = 1e12
_LONGEST_RESET_S = 7 * 24 * 3600.0
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s|d)")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6,
            "ns": 1e-9}  # fmt: skip
_CONCURRENCY = re.compile(r"concurren|at once|parallel|simultaneous|in.flight", re.I)
_TOKENS = re.compile(r"\btokens?\b|\btpm\b", re.I)
_REQUESTS = re.compile(r"\brequests?\b|\brpm\b", re.I)


def read_quotas(headers: Mapping[str, str]) -> tuple[Quota, ...]:
    """Reads OpenAI's `x-ratelimit-*` or Anthropic's headers; leaves out what makes no sense."""
    found = []
    for unit in _UNITS:
        openai = [headers.get(f"x-ratelimit-{part}-{unit}", "") for part in _NAMES]
        anthropic = [headers.get(f"anthropic-ratelimit-{unit}-{part}", "") for part in _NAMES]
        limit, remaining, reset = openai if any(openai) else anthropic
        quota = Quota(unit, _amount(limit, 1), _amount(remaining, 0), _reset_s(reset, headers))
        if quota.limit is not None and (quota.remaining or 0) > quota.limit:
            continue  # more left than there is: nonsense
        if quota != Quota(unit):
            found.append(quota)
    return tuple(found)


_NAMES = ("limit", "remaining", "reset")


def refused_by(
    words: str, quotas: tuple[Quota, ...]
) -> Literal["", "requests", "tokens", "concurrency"]:
    """Which limit a refusal is about, by its words, else by what is used up; "" if unknown."""
    if _CONCURRENCY.search(words):
        return "concurrency"
    is_tokens, is_requests = bool(_TOKENS.search(words)), bool(_REQUESTS.search(words))
    if is_tokens != is_requests:
        return "tokens" if is_tokens else "requests"
    empty = [quota.unit for quota in quotas if quota.remaining == 0]
    return empty[0] if len(empty) == 1 else ""


def _amount(text: str, least: float) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and least <= number <= _LARGEST else None


def _reset_s(text: str, headers: Mapping[str, str]) -> float | None:
    """Reads a duration (6m0s, 20ms, 12.5) or a moment (RFC 3339) as seconds from now."""
    text = text.strip()
    if not text:
        return None
    seconds = _duration(text)
    if seconds is None:
        seconds = _until(text, headers.get("date", ""))
    if seconds is None or not 0 <= seconds <= _LONGEST_RESET_S:
        return None
    return seconds


def _duration(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    parts = _PARTS.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _until(text: str, date: str) -> float | None:
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    try:  # the server's clock, if it tells
        now = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        now = datetime.now(UTC)
    return max(0.0, (then - (now if now.tzinfo else now.replace(tzinfo=UTC))).total_seconds())
