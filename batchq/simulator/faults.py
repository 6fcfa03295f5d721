"""Which fault a call meets, and how long it takes: a function of seed, prompt and attempt."""

from __future__ import annotations

import math
from enum import StrEnum
from hashlib import blake2b
from statistics import NormalDist

from batchq.simulator.options import SimulatorOptions

SCALE = 2**64
NORMAL = NormalDist()


class Fault(StrEnum):
    """What goes wrong with one call."""

    NONE = "none"  # a good answer
    SERVER_ERROR = "server_error"  # HTTP 500
    OVERLOADED = "overloaded"  # HTTP 529 or 503
    HANG = "hang"  # no answer for a long time
    DROP = "drop"  # the connection is closed without an answer
    GARBAGE = "garbage"  # an answer that is not valid JSON
    REFUSAL = "refusal"  # the model declines
    TRUNCATION = "truncation"  # the answer stops half way


def draw(seed: int, prompt: int, attempt: int, purpose: str) -> float:
    """Draws a number in [0, 1) that depends on its arguments alone."""
    text = f"{seed}/{prompt}/{attempt}/{purpose}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") / SCALE


def decide_fault(options: SimulatorOptions, prompt: int, attempt: int) -> Fault:
    """Decides what goes wrong with the `attempt`-th call (from 1) of a prompt.

    No order and no clock takes part, so every client meets the same faults.
    """
    rates = (
        (options.server_error_rate, Fault.SERVER_ERROR),
        (options.overloaded_rate, Fault.OVERLOADED),
        (options.hang_rate, Fault.HANG),
        (options.drop_rate, Fault.DROP),
        (options.garbage_rate, Fault.GARBAGE),
        (options.refusal_rate, Fault.REFUSAL),
        (options.truncation_rate, Fault.TRUNCATION),
    )
    if not any(rate for rate, _ in rates):
        return Fault.NONE
    left = draw(options.seed, prompt, attempt, "fault")
    for rate, fault in rates:
        if left < rate:
            return fault
        left -= rate
    return Fault.NONE


def draw_latency_s(options: SimulatorOptions, prompt: int, attempt: int) -> float:
    """Draws a lognormal latency around the median `latency_ms`."""
    if not options.latency_ms or not options.latency_sigma:
        return options.latency_ms / 1000
    share = draw(options.seed, prompt, attempt, "latency")
    deviation = NORMAL.inv_cdf(min(max(share, 1e-12), 1 - 1e-12))
    return options.latency_ms / 1000 * math.exp(options.latency_sigma * deviation)
