"""Rate limits and leases over all hosts, in Redis."""

from __future__ import annotations

import json
import logging
import math
from functools import lru_cache
from typing import Any

import redis
from redis.exceptions import RedisError

from batchq.errors import QueueError
from batchq.limiter import desk
from batchq.limiter.events import describe
from batchq.limiter.keys import limit_key, provider_key
from batchq.limiter.line import run_of
from batchq.limiter.pacing import check_size, paces, paces_of
from batchq.limiter.scripts import script
from batchq.limiter.signals import read_signal
from batchq.limiter.terms import terms
from batchq.plan import Limits, ProviderSpec
from batchq.ports import Feedback, Grant

log = logging.getLogger(__name__)

PARTS = ("state", "leases", "starts", "queue", "due", "runs", "away")
_OTHERS = {-1: "pause", -2: "concurrency", -3: "outage", -4: "turn"}
_NOTHING = Feedback()
_FOR_EVER_S = 1e9


class RedisLimiter:
    """Decides in one Lua script on the server's clock, so that all hosts see the same limits.

    Safe for threads and greenlets as its client is. Raises QueueError when Redis is away.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        # A script is loaded when it is first used, and again when Redis has forgotten it.
        self._reserve = client.register_script(script("reserve.lua"))
        self._settle = client.register_script(script("settle.lua"))
        self._pause = client.register_script(script("pause.lua"))
        self._announced: set[tuple[str, Limits]] = set()

    def reserve(
        self,
        provider: ProviderSpec,
        lease: str,
        tokens: int,
        ttl_s: float,
        patience_s: float = math.inf,
    ) -> Grant:
        """Takes one request, `tokens` tokens and a lease, or nothing of these.

        A lease that is held already is granted again and charged once; see ports.Limiter.
        """
        check_size(provider, tokens)
        self._announce(provider)
        written = terms(provider.limits, provider.priority)
        patience_us = int(min(patience_s, _FOR_EVER_S) * 1e6)
        args = [lease, run_of(lease), int(ttl_s * 1e6), tokens, written, patience_us]
        wait_us, index = _ask(self._reserve, provider, args)
        if wait_us == 0:
            return Grant(0.0, is_probe=index == 1)
        return Grant(wait_us / 1e6, _OTHERS.get(index) or paces_of(provider.limits)[index - 1].name)

    def settle(
        self,
        provider: ProviderSpec,
        lease: str,
        reserved: int,
        used: int,
        feedback: Feedback = _NOTHING,
    ) -> float:
        """Returns the lease, corrects the limits by what the answer told; harmless when repeated.

        Returns for how many seconds the provider has not answered anybody.
        """
        after = feedback.retry_after_s
        args = [
            lease,
            feedback.verdict.value,
            feedback.limit,
            -1 if after is None else int(after * 1e6),
            reserved,
            used,
            terms(provider.limits, provider.priority),
            _signals(provider, reserved, feedback),
        ]
        _, outage_us, *events = _ask(self._settle, provider, args)
        for event in events:
            log.warning("%s", describe(provider.name, str(_text(event))))
        return float(outage_us) / 1e6

    def pause(self, provider: ProviderSpec, seconds: float) -> None:
        """Lets nobody start a call to this provider for so long; never shortens a pause."""
        if seconds > 0:
            _ask(self._pause, provider, [int(seconds * 1e6)])

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

    def _announce(self, provider: ProviderSpec) -> None:
        """Makes a provider known to `batchq limits`, once a process and spelling of its limits."""
        mark = (provider_key(provider), provider.limits)
        if mark not in self._announced:
            try:
                desk.announce(self._client, provider)
            except RedisError as error:
                raise QueueError(
                    f"the limits of {provider.name} cannot be read: {error}"
                ) from error
            self._announced.add(mark)


def _ask(ask: Any, provider: ProviderSpec, args: list[Any]) -> Any:
    try:
        return ask(keys=_keys(provider_key(provider)), args=args)
    except RedisError as error:
        raise QueueError(f"the limits of {provider.name} cannot be read: {error}") from error


@lru_cache(maxsize=256)
def _keys(key: str) -> list[str]:
    return [limit_key(key, part) for part in PARTS]


def _signals(provider: ProviderSpec, tokens: int, feedback: Feedback) -> str:
    if not feedback.quotas:
        return ""
    signals = {one.name: read_signal(one, feedback.quotas) for one in paces(provider, tokens)}
    return json.dumps({name: [one.told, int(one.hold_us)] for name, one in signals.items()})


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
