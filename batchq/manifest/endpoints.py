"""The providers of a manifest: what they allow, what they cost, and how they are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from batchq.manifest.modes import Deadline, ModeKey
from batchq.manifest.scalars import (
    Duration,
    Part,
    Period,
    PositiveCount,
    VariableName,
    shown,
    wrong,
)


class Rate(Part):
    """One more rate limit: at most so many requests or tokens in a period."""

    requests: PositiveCount | None = Field(None, description="Requests in each period.")
    tokens: PositiveCount | None = Field(None, description="Tokens in each period.")
    per: Period = Field(description="Length of the period, such as 10s or 1d.")


class Limits(Part):
    """What a provider allows, over all hosts and all runs that share a broker."""

    rpm: PositiveCount | None = Field(None, description="Requests a minute.")
    tpm: PositiveCount | None = Field(None, description="Tokens a minute, input and output.")
    concurrency: PositiveCount | None = Field(None, description="Calls in flight at a time.")
    rates: list[Rate] = Field(
        default_factory=list, description="More limits: [{requests: 100, per: 10s}]."
    )
    adaptive: bool = Field(
        default=False, description="Find the limits that are not given, and follow them."
    )
    upload_lines: PositiveCount | None = Field(None, description="Calls in one upload.")
    upload_tokens: PositiveCount | None = Field(
        None, description="Input tokens in all uploads of a run at a time."
    )


class Prices(Part):
    """Dollars for a million tokens."""

    input_per_1m: float = Field(ge=0, description="Dollars for a million input tokens.")
    output_per_1m: float = Field(ge=0, description="Dollars for a million output tokens.")
    batch: float | None = Field(
        None, ge=0, le=1, description="Share of these that calls in uploads cost, such as 0.5."
    )


class Cache(Part):
    """Keeps answers: the same request is paid once, over runs and hosts."""

    max_age: Duration | None = Field(None, description="Ask anew for what is older than this.")


def _cache(value: Any) -> Any:
    if isinstance(value, bool):
        return {} if value else None
    if value is not None and not isinstance(value, Mapping | Cache):
        raise wrong(f"expected true, false or {{max_age: 30d}}, found {shown(value)}")
    return value


class Provider(Part):
    """A named LLM endpoint, or another API whose limits tasks keep."""

    kind: str = Field(
        description="openai, anthropic, simulator, api (tasks call it), or an entry point's name."
    )
    base_url: str = Field("", description="URL before /chat/completions or /v1/messages.")
    api_key_env: VariableName | None = Field(
        None, description="Name of the variable that holds the key; never the key."
    )
    model: str = Field("", description="Model of steps that name none.")
    limits: Limits = Field(Limits(), description="What the provider allows.")
    prices: Prices | None = Field(None, description="Prices, for cost estimates and totals.")
    timeout: Duration = Field(120.0, description="Longest time of one call.")
    simulator: dict[str, Any] = Field(
        default_factory=dict, description="How the simulator behaves; kind simulator only."
    )
    cache: Annotated[
        Cache | None,
        BeforeValidator(_cache, json_schema_input_type=bool | Cache),
    ] = Field(None, description="Same request, same answer, paid once: true or {max_age: 30d}.")
    mode: ModeKey = Field(None, description="Of steps that name none: online, batch or auto.")
    deadline: Deadline | None = Field(None, description="Of steps with mode auto that name none.")
