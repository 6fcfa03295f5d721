"""A provider as a plan has it: what it allows and costs, what is kept of it; when to try again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Unit = Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `amount` requests or tokens in any `period_s` seconds."""

    name: str
    unit: Unit
    amount: float
    period_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What one provider allows, over all hosts and runs that share a broker.

    With `adaptive` the limits that it does not tell are found, below those given here. An upload
    has `upload_lines` at most, all of a run at a time `upload_tokens` of input.
    """

    rates: tuple[RateLimit, ...] = ()
    concurrency: int | None = None
    adaptive: bool = False
    upload_lines: int | None = None
    upload_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars for a million tokens; `batch` is the share of them that calls in uploads cost."""

    input_per_1m: float
    output_per_1m: float
    batch: float | None = None


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """How answers of a provider are kept and used again.

    One older than `max_age_s` is asked for anew and replaced; 0 asks for all of them anew.
    """

    max_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """One LLM endpoint. The key is read from the variable `api_key_env` where the call is made.

    `priority` is the share that the run gets of a provider that others use, too: twice as much
    for 2 as for 1. `is_started` marks a simulator that batchq started for the run: its address
    is no name.
    """

    name: str
    kind: str
    base_url: str
    model: str
    api_key_env: str = ""
    limits: Limits = Limits()
    prices: Prices | None = None
    timeout_s: float = 120.0
    simulator: Mapping[str, Any] = field(default_factory=dict)
    cache: CacheSpec | None = None
    is_started: bool = False
    priority: float = 1.0
