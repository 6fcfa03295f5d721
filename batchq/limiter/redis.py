"""Rate limits and leases over all hosts, in Redis."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any

import redis
from redis.exceptions import RedisError

from batchq.errors import QueueError
from batchq.limiter.keys import limit_key
from batchq.limiter.pacing import (
    BOOKED_AHEAD_US,
    POLL_SPACING_US,
    POLL_US,
    Pace,
    paces,
    refund_paces,
)
from batchq.plan import ProviderSpec
from batchq.ports import Grant

_ALL = ("rates", "leases", "starts", "pause")
_PAUSE, _CONCURRENCY = -1, -2  # what reserve.lua returns in place of a limit's index


class RedisLimiter:
    """Decides in one Lua script on the server's clock, so that all hosts see the same limits.

    Safe for threads and greenlets as its client is. Raises QueueError when Redis is away.
    """

    def __init__(
        self, client: redis.Redis, *, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        # A script is loaded when it is first used, and again when Redis has forgotten it.
        self._reserve = client.register_script(_source("reserve.lua"))
        self._settle = client.register_script(_source("settle.lua"))
        self._pause = client.register_script(_source("pause.lua"))
        self._uniform = uniform

    def reserve(self, provider: ProviderSpec, lease: str, tokens: int, ttl_s: float) -> Grant:
        """Takes one request, `tokens` tokens and a lease, or nothing of these.

        A lease that is held already is granted again and charged once.
        """
        wanted = paces(provider, tokens)
        cap = provider.limits.concurrency or 0
        head: list[str | int] = [
            lease,
            int(ttl_s * 1e6),
            cap,
            BOOKED_AHEAD_US,
            POLL_US,
            POLL_SPACING_US,
        ]
        wait_us, index = _ask(self._reserve, provider, _ALL, [*head, *_flat(wanted)])
        if index == 0:
            return Grant(0.0)
        return Grant(self._wait_s(wait_us), _name(index, wanted))

    def settle(self, provider: ProviderSpec, lease: str, reserved: int, used: int) -> None:
        """Returns the lease and corrects the token limits; harmless when done twice."""
        changed = refund_paces(provider, reserved, used)
        _ask(self._settle, provider, _ALL[:3], [lease, *_flat(changed)])

    def pause(self, provider: ProviderSpec, seconds: float) -> None:
        """Lets nobody start a call to this provider for so long; never shortens a pause."""
        if seconds > 0:
            _ask(self._pause, provider, _ALL[3:], [max(1, int(seconds * 1000))])

    def _wait_s(self, wait_us: int) -> float:
        if wait_us > 0:
            return wait_us / 1e6
        return -wait_us / 1e6 + self._uniform(0.5, 1.0)


def _ask(script: Any, provider: ProviderSpec, parts: Sequence[str], args: list[str | int]) -> Any:
    try:
        return script(keys=[limit_key(provider, part) for part in parts], args=args)
    except RedisError as error:
        raise QueueError(f"the limits of {provider.name} cannot be read: {error}") from error


def _flat(limits: Iterable[Pace]) -> list[str | int]:
    return [
        part
        for pace in limits
        for part in (pace.name, pace.cost, pace.amount, pace.window_us, pace.burst)
    ]


def _name(index: int, limits: tuple[Pace, ...]) -> str:
    if index == _PAUSE:
        return "pause"
    return "concurrency" if index == _CONCURRENCY else limits[index - 1].name


def _source(name: str) -> str:
    return files("batchq.limiter").joinpath(name).read_text(encoding="utf-8")
