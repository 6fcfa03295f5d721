"""Makes one call under a provider's limits, and tells the limiter what the answer showed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batchq.errors import LimitTimeout, ProviderError
from batchq.planning.pricing import estimate_tokens
from batchq.ports import (
    ChatReply,
    ChatRequest,
    Feedback,
    Grant,
    Limiter,
    Provider,
    Reservation,
    Verdict,
)

LEASE_SLACK_S = 30.0
SLOT_PATIENCE_S = 3.0
"""A worker's item that has to wait for longer gives its slot away meanwhile."""
LONGEST_LOOK_S = 2.0
"""A call that waits in its slot asks again at least so often: the limits may have changed."""
LONGEST_WAIT_S = 24 * 3600.0
LONGEST_AWAY_S = 3600.0
"""An item that waits elsewhere comes back at least so often."""


class NotNow(Exception):
    """Raised when an item has to wait for so long that its slot is better used by another."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = min(wait_s, LONGEST_AWAY_S)
        super().__init__(f"again in {self.wait_s:g} s")


@dataclass
class Caller:
    """Calls providers for one item. `patience_s` is how long a call may wait in its slot.

    After a call, `waited_s` says for how long it waited, `is_probe` whether it was the one that
    tries if an outage is over, and `outage_s` how long the provider has not answered.
    """

    limiter: Limiter
    provider: Callable[[str], Provider]
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    patience_s: float = float("inf")
    waited_s: float = 0.0
    is_probe: bool = False
    outage_s: float = 0.0

    def call(self, request: ChatRequest, lease: str) -> ChatReply:
        """Waits, calls and settles; raises ProviderError, LimitError or NotNow."""
        tokens, ttl_s = reserved_tokens(request), request.timeout_s + LEASE_SLACK_S
        asked = Reservation(request.provider, lease, tokens, ttl_s, self.patience_s)
        self.waited_s, self.is_probe, self.outage_s = 0.0, False, 0.0
        self.is_probe = self._reserve(asked).is_probe
        used, feedback = tokens, Feedback(Verdict.UNSENT)
        try:
            reply = self.provider(request.provider.kind).call(request)
            used = reply.usage.input_tokens + reply.usage.output_tokens
            # With retry-after, it was the last call that the limit allowed for now.
            feedback = Feedback(retry_after_s=reply.retry_after_s, quotas=reply.quotas)
        except ProviderError as error:
            used = sum(error.tokens)  # a refused or truncated answer is paid, any other is not
            feedback = feedback_of(error)
            raise
        finally:
            self.outage_s = self.limiter.settle(asked, used, feedback)
        return reply

    def _reserve(self, asked: Reservation) -> Grant:
        self.waited_s, grant = wait_for_grant(self.limiter, asked, self.clock, self.sleep)
        return grant


def wait_for_grant(
    limiter: Limiter,
    asked: Reservation,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> tuple[float, Grant]:
    """Asks until a call may be made; returns how long that took, and the grant.

    Raises LimitError if no wait would do, NotNow beyond the patience of the call.
    """
    began = clock()
    while True:
        grant = limiter.reserve(asked)
        if grant.is_granted:
            return clock() - began, grant
        if grant.wait_s > LONGEST_WAIT_S:
            raise LimitTimeout(
                f"provider {asked.provider.name}: {grant.blocked_by} would make this call wait "
                f"{grant.wait_s / 3600:.0f} h"
            )
        if grant.wait_s > asked.patience_s:
            raise NotNow(grant.wait_s)
        sleep(min(grant.wait_s, LONGEST_LOOK_S))


def feedback_of(error: ProviderError) -> Feedback:
    """What a failed call shows of its provider."""
    return Feedback(_verdict(error), error.limit, error.retry_after_s, error.quotas)


def _verdict(error: ProviderError) -> Verdict:
    if error.kind == "rate_limit":
        return Verdict.REFUSED
    if error.kind == "overloaded":
        return Verdict.OVERLOADED
    if error.kind in ("connection", "timeout") or (error.status or 0) >= 500:
        return Verdict.DOWN
    if error.status is None and error.kind in ("auth", "bad_request"):
        return Verdict.UNSENT
    return Verdict.ANSWERED


def reserved_tokens(request: ChatRequest) -> int:
    """The tokens that a call is taken to need: its text, and the longest answer allowed."""
    text = request.system + "".join(message.content for message in request.messages)
    return estimate_tokens(text) + int(request.options.get("max_tokens", 0) or 0)
