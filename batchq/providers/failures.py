"""From an HTTP answer that is not 200 to the error class that says what can be done."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from batchq.endpoint import ProviderSpec
from batchq.errors import (
    AuthFailed,
    BadRequest,
    ContextTooLong,
    Overloaded,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    Refused,
    ServerFailed,
    UnknownModel,
)
from batchq.host.apikeys import read_api_key
from batchq.providers.http import Answer
from batchq.providers.quotas import read_quotas, refused_by

_TOO_LONG = re.compile(
    r"context_length_exceeded|maximum context length|context window|prompt is too long", re.I
)
_QUOTA = re.compile(
    r"insufficient_quota|billing_not_active|billing_hard_limit_reached|credit balance is too low",
    re.I,
)
_MODEL = re.compile(
    r"model_not_found|model_not_exist|not_found_error.*\bmodel\b"
    r"|\bmodel\b.{0,200}\b(?:does not exist|not exist|not found|is not supported)"
    r"|\b(?:unknown|invalid|no such) model\b",
    re.I | re.S,
)
_CONTENT = re.compile(r"content_filter|content_policy_violation", re.I)
_KEY_SHAPED = re.compile(r"\b(?:sk|pk|key|xai|gsk)[-_][\w*.-]{6,}")
_MAX_MESSAGE = 500


def read_key(provider: ProviderSpec) -> str:
    """Reads the provider's key where the call is made; "" if it needs none."""
    if not provider.api_key_env:
        return ""
    try:
        return read_api_key(provider.api_key_env, os.environ)
    except ValueError as error:
        raise AuthFailed(f"provider {provider.name}: {error}") from None


def redact(text: str, key: str) -> str:
    """Takes a key, and whatever looks like one, out of a text."""
    if key:
        text = text.replace(key, "[key]")
    return _KEY_SHAPED.sub("[key]", text)


def read_json(answer: Answer, provider: ProviderSpec, key: str) -> dict[str, Any]:
    """Returns the object in a successful answer; raises the fitting ProviderError for any other."""
    if not 200 <= answer.status < 300:
        raise failure(answer, provider, key)
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        text = redact(answer.body[:200].decode("utf-8", "replace"), key)
        raise ServerFailed(f"provider {provider.name} answered with something else: {text!r}")
    return body


def failure(answer: Answer, provider: ProviderSpec, key: str) -> ProviderError:
    """Chooses the error class for an HTTP status and the provider's own words."""
    status = answer.status
    code, words = _explain(answer.body)
    words = redact(words, key)[:_MAX_MESSAGE]
    message = f"provider {provider.name} answered {status}" + (f": {words}" if words else "")
    kind = kind_of(status, f"{code} {words}")
    if kind is AuthFailed and status in (401, 403) and provider.api_key_env:
        message += f" (the key is read from {provider.api_key_env})"
    quotas = read_quotas(answer.headers)
    return kind(
        message,
        status=status,
        retry_after_s=retry_after_s(answer.headers),
        limit=refused_by(words, quotas) if kind is RateLimited else "",
        quotas=quotas,
    )


def kind_of(status: int, words: str) -> type[ProviderError]:
    """Chooses by status and words alone."""
    if status in (401, 402, 403) or (status in (400, 429) and _QUOTA.search(words)):
        return AuthFailed  # a used-up quota comes as 429, but no wait fills it
    if status == 413 or (400 <= status < 500 and _TOO_LONG.search(words)):
        return ContextTooLong
    if status in (400, 404) and _MODEL.search(words):
        return UnknownModel
    if status == 400 and _CONTENT.search(words):
        return Refused
    special: Mapping[int, type[ProviderError]] = {
        408: ProviderTimeout,
        429: RateLimited,
        503: Overloaded,
        529: Overloaded,
    }
    return special.get(status) or (ServerFailed if status >= 500 else BadRequest)


def _explain(body: bytes) -> tuple[str, str]:
    """The code and the words of an error body, in the shapes that servers use."""
    text = body[:10_000].decode("utf-8", "replace").strip()
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return "", text
    if not isinstance(data, dict):
        return "", text
    error = data.get("error", data)
    if not isinstance(error, dict):
        return "", str(error)
    code = f"{error.get('code') or ''} {error.get('type') or ''}"
    words = error.get("message") or error.get("detail") or text
    return code, str(words)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Reads `retry-after-ms` or `retry-after` (seconds or a date); None if there is none."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    seconds = _number(value)
    if seconds is not None or not value:
        return seconds
    then = read_date(value)
    if then is None:
        return None
    now = read_date(headers.get("date", "")) or datetime.now(UTC)  # the server's clock, if it tells
    return max(0.0, (then - now).total_seconds())


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def read_date(text: str) -> datetime | None:
    """Reads a date of HTTP; None for what is none."""
    try:
        date = parsedate_to_datetime(text)
    except (OverflowError, TypeError, ValueError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
