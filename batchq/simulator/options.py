"""What a simulator does: the keys of a provider's `simulator:` mapping and of `/control`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from batchq.errors import UsageError

Rate = Annotated[float, Field(ge=0, le=1)]
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)]


class SimulatorOptions(BaseModel):
    """Options of one simulated provider. Rates are shares of the calls: 0.1 is 10 %."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    seed: int = Field(0, description="another seed gives other answers, faults and latencies")
    latency_ms: float = Field(0.0, ge=0, description="median time to an answer, in milliseconds")
    latency_sigma: float = Field(
        0.0, ge=0, le=5, description="spread of the lognormal latency; 0: always the median"
    )
    rpm: float | None = Field(None, gt=0, description="requests a minute; none: no limit")
    tpm: float | None = Field(
        None, gt=0, description="tokens a minute, of prompts and answers; none: no limit"
    )
    burst_s: float = Field(
        60.0, gt=0, description="seconds' worth of rpm and tpm that may be used at once"
    )
    enforcement: Literal["bucket", "window"] = Field(
        "bucket",
        description="bucket: burst_s at once, then as it fills; window: no span of burst_s seconds"
        " ever holds more than its share",
    )
    tells: Literal["all", "retry", "nothing"] = Field(
        "all",
        description="what headers say of rpm and tpm; retry: only when to come back after a 429",
    )
    concurrency: int | None = Field(None, gt=0, description="calls in flight; none: no limit")
    context_tokens: int | None = Field(
        None, gt=0, description="longest prompt, in tokens; none: no limit"
    )
    server_error_rate: Rate = Field(0.0, description="share of calls answered with HTTP 500")
    overloaded_rate: Rate = Field(
        0.0, description="share answered as overloaded: HTTP 529 (Anthropic) or 503 (OpenAI)"
    )
    hang_rate: Rate = Field(0.0, description="share of calls that hang for hang_s, then break off")
    hang_s: float = Field(300.0, gt=0, description="how long a hanging call is kept open")
    drop_rate: Rate = Field(0.0, description="share of connections closed without an answer")
    garbage_rate: Rate = Field(0.0, description="share answered with text that is not valid JSON")
    refusal_rate: Rate = Field(0.0, description="share of answers in which the model declines")
    truncation_rate: Rate = Field(0.0, description="share of answers cut off as if at max_tokens")
    batch_s: float = Field(0.0, ge=0, description="seconds until a batch has ended")
    batch_window_s: float = Field(
        86400.0, gt=0, description="seconds after which what is not answered expires"
    )
    batch_cancel_s: float = Field(
        0.0, ge=0, description="seconds from a cancel to the end of a batch"
    )
    batch_expire_rate: Rate = Field(
        0.0, description="share of lines that are not answered before the window ends"
    )
    batch_order: Literal["shuffled", "given"] = Field(
        "shuffled", description="order of the lines in a file of results"
    )
    batch_duplicate_rate: Rate = Field(0.0, description="share of result lines that come twice")
    batch_malformed_rate: Rate = Field(
        0.0, description="share of result lines that are not valid JSON"
    )
    batch_unknown_rate: Rate = Field(
        0.0, description="share of result lines followed by one with an id that nobody sent"
    )
    batch_cut: Literal["no", "once", "always"] = Field(
        "no",
        description="once: the first download of a file of results breaks off half way;"
        " always: the file itself ends there",
    )
    batch_reject_rate: Rate = Field(0.0, description="share of batches that are rejected whole")
    batch_lost_rate: Rate = Field(
        0.0, description="share of batches that are created, but whose creator gets no answer"
    )
    batch_error_rate: Rate = Field(
        0.0, description="share of requests about batches and files answered with HTTP 500"
    )
    batch_max_lines: int | None = Field(
        None, gt=0, description="lines a batch; none: 50000 (OpenAI), 100000 (Anthropic)"
    )
    batch_max_bytes: int | None = Field(
        None, gt=0, description="bytes a batch; none: 200 MB (OpenAI), 256 MB (Anthropic)"
    )
    batch_queue_tokens: int | None = Field(
        None, gt=0, description="prompt tokens in batches that have not ended; none: no limit"
    )
    clock_ahead_s: float = Field(
        0.0, description="seconds that the provider's clock is ahead of ours, in what it tells"
    )
    input_price: float = Field(0.0, ge=0, description="dollars for a million tokens of prompts")
    output_price: float = Field(0.0, ge=0, description="dollars for a million tokens of answers")
    batch_price: Rate = Field(0.5, description="share of the prices that a batch pays")
    api_keys: Names = Field((), description="keys that are accepted; none listed: any or none")
    models: Names = Field((), description="models that exist; none listed: every name")

    @model_validator(mode="after")
    def _faults_fit(self) -> SimulatorOptions:
        total = sum(getattr(self, name) for name in FAULT_RATES)
        if total > 1 + 1e-9:
            raise ValueError(
                f"{', '.join(FAULT_RATES)} add up to {total:g}; a call has one fault at most,"
                " so together they may be 1"
            )
        return self


FAULT_RATES = (
    "server_error_rate",
    "overloaded_rate",
    "hang_rate",
    "drop_rate",
    "garbage_rate",
    "refusal_rate",
    "truncation_rate",
)


def read_options(
    mapping: Mapping[str, Any], base: SimulatorOptions | None = None
) -> SimulatorOptions:
    """Checks a mapping of options.

    With `base`, the mapping changes only the options that it names.

    Raises:
        UsageError: with a line for every unknown key and wrong value.
    """
    values = {**(base.model_dump() if base else {}), **mapping}
    try:
        return SimulatorOptions.model_validate(values)
    except ValidationError as error:
        lines = [_explain(part) for part in error.errors()]
        raise UsageError("\n".join(dict.fromkeys(lines))) from error


def _explain(part: Any) -> str:
    key = ".".join(map(str, part["loc"]))
    if part["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, SimulatorOptions.model_fields, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(KEYS)}"
        return f"simulator option {key}: there is no such option ({hint})"
    if not key:
        return f"simulator options: {part['msg'].removeprefix('Value error, ')}"
    field = SimulatorOptions.model_fields[str(part["loc"][0])]
    message = part["msg"][:1].lower() + part["msg"][1:]
    return f"simulator option {key}: {message}, not {part['input']!r} ({field.description})"


KEYS = tuple(SimulatorOptions.model_fields)
