"""Rate limits and leases over all hosts, in Redis."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

import redis
from redis.commands.core import Script
from redis.exceptions import RedisError

from batchq.broker.scripts import Scripts
from batchq.endpoint import ProviderSpec
from batchq.errors import QueueError
from batchq.limiter import desk, line
from batchq.limiter.events import describe
from batchq.limiter.keys import limit_key, provider_key
from batchq.limiter.pacing import check_size, paces, paces_of
from batchq.limiter.scripts import script
from batchq.limiter.signals import read_signal
from batchq.limiter.terms import terms
from batchq.ports import Feedback, Grant, Reservation

log = logging.getLogger(__name__)

PARTS = ("state", "leases", "queue", "due", "runs", "away")
_NOTHING = Feedback()
_FOR_EVER_S = 1e9
_PREPARED = 256


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What every question about one provider begins with, and the names of its limits."""

    provider: ProviderSpec
    keys: list[bytes]
    terms: bytes
    names: tuple[str, ...]


class RedisLimiter:
    """Decides in one Lua script on the server's clock, so that all hosts see the same limits.

    Safe for threads and greenlets as its client is. Raises QueueError when Redis is away.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._scripts = Scripts(client)
        self._reserve = self._scripts.register(script("reserve.lua"))
        self._settle = self._scripts.register(script("settle.lua"))
        self._pause = self._scripts.register(script("pause.lua"))
        self._prepared: dict[int, _Prepared] = {}

    def reserve(self, asked: Reservation) -> Grant:
        """Takes one request, the tokens and a lease, or nothing of these; see ports.Limiter."""
        provider, tokens = asked.provider, asked.tokens
        check_size(provider, tokens)
        known = self._prepare(provider)
        patience_us = int(min(asked.patience_s, _FOR_EVER_S) * 1e6)
        args = [asked.lease, int(asked.ttl_s * 1e6), tokens, known.terms, patience_us]
        wait_us, index = self._ask(self._reserve, known, args)
        if wait_us == 0:
            return Grant(0.0, is_probe=index == 1)
        return Grant(wait_us / 1e6, line.NAMES.get(index) or known.names[index - 1])

    def settle(self, asked: Reservation, used: int, feedback: Feedback = _NOTHING) -> float:
        """Returns the lease, corrects the limits by what the answer told; see ports.Limiter."""
        known = self._prepare(asked.provider)
        told = "" if feedback == _NOTHING else _written(asked, feedback)
        args = [asked.lease, int(asked.ttl_s * 1e6), asked.tokens, used, known.terms, told]
        _, outage_us, *events = self._ask(self._settle, known, args)
        for event in events:
            log.warning("%s", describe(asked.provider.name, str(_text(event))))
        return float(outage_us) / 1e6

    def pause(self, provider: ProviderSpec, seconds: float) -> None:
        """Lets nobody start a call to this provider for so long; never shortens a pause."""
        if seconds > 0:
            self._ask(self._pause, self._prepare(provider), [int(seconds * 1e6)])

    def usage(self) -> list[desk.ProviderUse]:
        """What all hosts do with each provider that was called lately."""
        try:
            return desk.usage(self._client)
        except RedisError as error:
            raise QueueError(f"the limits cannot be read: {error}") from error

    def set_limits(self, key: str, **limits: float | None) -> None:
        """Sets rpm, tpm or concurrency for all hosts at once; None gives the manifest's back.

        Raises UsageError for a limit that makes no sense.
        """
        try:
            desk.set_limits(self._client, key, **limits)
        except RedisError as error:
            raise QueueError(f"the limits cannot be changed: {error}") from error

    def _ask(self, script: Script, known: _Prepared, args: list[Any]) -> Any:
        try:
            return self._scripts.run(script, known.keys, args)
        except RedisError as error:
            raise _away(known.provider, error) from error

    def _prepare(self, provider: ProviderSpec) -> _Prepared:
        """Writes down what the scripts are told of a provider, and makes it known, once."""
        # By identity: to hash a provider with all its limits would take longer than the rest.
        found = self._prepared.get(id(provider))
        if found is not None and found.provider is provider:
            return found
        try:
            desk.announce(self._client, provider)
        except RedisError as error:
            raise _away(provider, error) from error
        key = provider_key(provider)
        made = _Prepared(
            provider,
            [limit_key(key, part).encode() for part in PARTS],
            terms(provider.limits, provider.priority).encode(),
            tuple(one.name for one in paces_of(provider.limits)),
        )
        if len(self._prepared) >= _PREPARED:
            self._prepared.clear()
        self._prepared[id(provider)] = made
        return made


def _away(provider: ProviderSpec, error: RedisError) -> QueueError:
    return QueueError(f"the limits of {provider.name} cannot be read: {error}")


def _written(asked: Reservation, feedback: Feedback) -> str:
    """What an answer told, as settle.lua reads it."""
    after = feedback.retry_after_s
    signals = {}
    if feedback.quotas:
        for pace in paces(asked.provider, asked.tokens):
            signal = read_signal(pace, feedback.quotas)
            signals[pace.name] = [signal.told, int(signal.hold_us)]
    return json.dumps(
        {
            "verdict": feedback.verdict.value,
            "limit": feedback.limit,
            "after": -1 if after is None else int(after * 1e6),
            "signals": signals,
        }
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
