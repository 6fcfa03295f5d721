"""Whether to try again after a failure, and how long to wait before it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from batchq.errors import OutputError, ProviderError, TaskError
from batchq.plan import RetryPolicy

LONGEST_RETRY_AFTER_S = 3600.0
"""A provider that asks for more is not waited for: the item fails and says why."""

_LARGEST_EXPONENT = 60  # 2 ** 60 times any base is beyond every max_delay; 2 ** 2000 overflows


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """What to do after a failed attempt. `note` says what a reader of the policy would not expect.

    `wait_s` is 0 when `retry` is false.
    """

    retry: bool
    wait_s: float = 0.0
    note: str = ""


def decide(
    policy: RetryPolicy, error: Exception, attempt: int, rng: random.Random
) -> RetryDecision:
    """Decides what follows the failure of try number `attempt`, counted from 1.

    An answer that does not parse is asked again at once: the model has to be corrected, not
    waited for. A `retry_after_s` of the provider is never cut short, not by `max_delay_s` either.
    """
    if attempt > policy.max_retries or not is_retryable(error):
        return RetryDecision(retry=False)
    if isinstance(error, OutputError):
        return RetryDecision(retry=True)
    asked_s = error.retry_after_s if isinstance(error, ProviderError) else None
    if asked_s is not None and asked_s > LONGEST_RETRY_AFTER_S:
        note = f"the provider asks to wait {asked_s:.0f} s; more than an hour is not waited for"
        return RetryDecision(retry=False, note=note)
    delay_s = backoff_s(policy, attempt)
    if policy.jitter:
        delay_s = rng.uniform(0.0, delay_s)
    if asked_s is None or asked_s <= delay_s:
        return RetryDecision(retry=True, wait_s=delay_s)
    note = ""
    if asked_s > policy.max_delay_s:
        note = f"the provider asks to wait {asked_s:.0f} s, beyond max_delay"
    return RetryDecision(retry=True, wait_s=asked_s, note=note)


def is_retryable(error: Exception) -> bool:
    """Tells whether another try can help, by the kind of the error alone."""
    if isinstance(error, OutputError):
        return True
    return isinstance(error, ProviderError | TaskError) and error.retryable


def backoff_s(policy: RetryPolicy, attempt: int) -> float:
    """Computes the longest wait after try number `attempt`, before jitter."""
    match policy.backoff:
        case "exponential":
            factor = 2.0 ** min(attempt - 1, _LARGEST_EXPONENT)
        case "linear":
            factor = float(attempt)
        case "constant":
            factor = 1.0
    return min(policy.base_s * factor, policy.max_delay_s)
