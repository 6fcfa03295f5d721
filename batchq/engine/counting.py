"""Counts what items and calls come to, for metrics, beside the work and not in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from batchq.endpoint import ProviderSpec
from batchq.engine.calling import LONGEST_LOOK_S
from batchq.engine.tally import Tally
from batchq.outcome import Outcome, Summary
from batchq.plan import StepSpec
from batchq.ports import Feedback, Grant, Limiter, Reservation

_NOTHING = Feedback()


def count_outcome(tally: Tally, spec: StepSpec | None, outcome: Outcome) -> None:
    """Counts an item that ended; by `spec` it knows who was called for it."""
    kind = outcome.error.kind if outcome.error else ""
    tally.add("items_ended", outcome.state.value, kind)
    if retries := Summary.of(outcome).retries:
        tally.add("item_retries", amount=retries)
    seconds = max(0.0, outcome.ended_at - outcome.started_at)
    tally.observe("item_seconds", outcome.state.value, seconds=seconds)
    stages = spec.stages if spec is not None else ()
    providers = {stage.name: stage.provider.name for stage in stages if stage.provider is not None}
    for attempt in outcome.attempts:
        provider = providers.get(attempt.stage)
        if provider is None:
            continue
        usage = attempt.usage
        if attempt.cached:
            tally.add("answers_cached", provider)
        if usage.input_tokens:
            tally.add("tokens", provider, "input", amount=usage.input_tokens)
        if usage.output_tokens:
            tally.add("tokens", provider, "output", amount=usage.output_tokens)
        if usage.cost_nusd:
            tally.add("cost_usd", provider, amount=usage.cost_usd)
        if usage.unpriced_calls:
            tally.add("unpriced_calls", provider, amount=usage.unpriced_calls)


@dataclass
class CountingLimiter:
    """A limiter that counts what another one grants, and how long the calls took."""

    limiter: Limiter
    tally: Tally
    clock: Callable[[], float] = time.monotonic
    _granted: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, asked: Reservation) -> Grant:
        """See ports.Limiter."""
        grant = self.limiter.reserve(asked)
        if grant.is_granted:
            with self._lock:
                self._granted[asked.lease] = self.clock()
            return grant
        # Who waits in its slot asks again soon; who waits elsewhere comes back when it was told.
        is_away = grant.wait_s > asked.patience_s
        told_s = grant.wait_s if is_away else min(grant.wait_s, LONGEST_LOOK_S)
        labels = (asked.provider.name, grant.blocked_by)
        self.tally.add("waits", *labels)
        self.tally.add("wait_seconds", *labels, amount=told_s)
        return grant

    def settle(self, asked: Reservation, used: int, feedback: Feedback = _NOTHING) -> float:
        """See ports.Limiter."""
        with self._lock:
            granted_at = self._granted.pop(asked.lease, None)
        if granted_at is not None:
            name = asked.provider.name
            self.tally.add("calls", name, feedback.verdict.value)
            self.tally.observe("call_seconds", name, seconds=self.clock() - granted_at)
        return self.limiter.settle(asked, used, feedback)

    def pause(self, provider: ProviderSpec, seconds: float) -> None:
        """See ports.Limiter."""
        self.limiter.pause(provider, seconds)
