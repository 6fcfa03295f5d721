"""Shows what the limiter of a Redis knows of each provider, and lets people change limits."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from batchq.endpoint import ProviderSpec
from batchq.errors import UsageError
from batchq.limiter.adaptive import Learned
from batchq.limiter.breaker import Breaker
from batchq.limiter.keys import KNOWN, limit_key, provider_key
from batchq.limiter.line import run_of
from batchq.limiter.scripts import METER_US, script

if TYPE_CHECKING:
    import redis

MOVABLE = ("rpm", "tpm", "concurrency")
"""The limits that can be set while runs go on."""
SET_KEEP_S = 30 * 24 * 3600
LARGEST = 1e9
_WAITERS_READ = 10_000
_MINUTE_US = 60e6


@dataclass(frozen=True, slots=True)
class LimitUse:
    """One limit of a provider: what the manifest gives, what is in force and where it is from.

    `source` is manifest, set (by hand), told (by the provider) or found. None is no limit.
    """

    name: str
    given: float | None
    amount: float | None
    source: str


@dataclass(frozen=True, slots=True)
class ProviderUse:
    """What all hosts do with one provider right now. `waiting` has the calls in line by run.

    Of the runs in `away`, items wait elsewhere, too. `blocked_by` is what was last waited for.
    """

    key: str
    name: str
    base_url: str
    limits: tuple[LimitUse, ...]
    in_flight: int
    waiting: Mapping[str, int]
    requests_per_minute: float
    tokens_per_minute: float
    granted: int
    refused: int
    waits: int
    breaker: str
    paused_s: float
    outage_s: float
    away: tuple[str, ...] = ()
    blocked_by: str = ""

    def limit(self, name: str) -> float | None:
        """The amount of a limit that is in force."""
        return next((one.amount for one in self.limits if one.name == name), None)


def announce(client: redis.Redis, provider: ProviderSpec) -> None:
    """Makes a provider known to `batchq limits`."""
    limits = provider.limits
    given: dict[str, float] = {rate.name: rate.amount for rate in limits.rates}
    if limits.concurrency:
        given["concurrency"] = limits.concurrency
    about = {
        "name": provider.name,
        "base_url": provider.base_url,
        "limits": given,
        "adaptive": limits.adaptive,
    }
    client.hset(KNOWN, provider_key(provider), json.dumps(about))


def usage(client: redis.Redis) -> list[ProviderUse]:
    """What is known of every provider that was called lately."""
    known = {_text(key): json.loads(value) for key, value in _hash(client, KNOWN).items()}
    seconds, micros = client.time() if known else (0, 0)  # no key, so in no pipeline of a cluster
    now = seconds * 1e6 + micros
    found = []
    for key, about in sorted(known.items()):
        with client.pipeline(transaction=False) as pipe:
            pipe.hgetall(limit_key(key, "state"))
            pipe.zrange(limit_key(key, "leases"), 0, -1, withscores=True)
            pipe.zrange(limit_key(key, "due"), 0, _WAITERS_READ, withscores=True)
            pipe.zrange(limit_key(key, "away"), 0, -1, withscores=True)
            state, leases, due, back = pipe.execute()
        fields = {_text(name): _text(value) for name, value in state.items()}
        in_flight = sum(expiry > now for _, expiry in leases)
        waiting = Counter(run_of(_text(one)) for one, at in due if at > now - 2e6)
        away = tuple(sorted(_text(run) for run, at in back if at > now))
        found.append(replace(_use(key, about, fields, in_flight, waiting, now), away=away))
    return found


def set_limits(client: redis.Redis, key: str, **limits: float | None) -> None:
    """Sets limits of a provider for all hosts until they are unset with None.

    What was found out about them is forgotten, and what was granted counts as much of the new
    amount as of the old one. Raises UsageError for a limit that makes no sense.
    """
    for name, amount in limits.items():
        check_limit(name, amount)
    state, before = limit_key(key, "state"), _amounts(client, key)
    with client.pipeline() as pipe:
        for name, amount in limits.items():
            pipe.hdel(state, f"{name}:learned")
            if amount is None:
                pipe.hdel(state, f"{name}:set")
            else:
                pipe.hset(state, f"{name}:set", f"{amount:.6f}")
                pipe.expire(state, SET_KEEP_S)
        pipe.execute()
    after = _amounts(client, key)
    for name in limits:
        old, new = before.get(name), after.get(name)
        if name != "concurrency" and old and new and old != new:
            client.eval(script("rescale.lua"), 1, state, name, str(old / new))


def _amounts(client: redis.Redis, key: str) -> dict[str, float | None]:
    return {one.name: one.amount for use in usage(client) if use.key == key for one in use.limits}


def check_limit(name: str, amount: float | None) -> None:
    """Raises UsageError unless a limit of this name can have this amount."""
    if name not in MOVABLE:
        raise UsageError(f"no limit `{name}` can be set; those that can: {', '.join(MOVABLE)}")
    if amount is not None and not (math.isfinite(amount) and 1 <= amount <= LARGEST):
        raise UsageError(f"{name} must be a number from 1 to {LARGEST:,.0f}, not {amount:g}")


def _use(
    key: str,
    about: dict[str, Any],
    state: dict[str, str],
    in_flight: int,
    waiting: Mapping[str, int],
    now: float,
) -> ProviderUse:
    names = dict.fromkeys([*about["limits"], *MOVABLE])
    limits = [_limit(name, about["limits"].get(name), state) for name in names]
    requests, tokens = _metered(state, now)
    breaker = _breaker(state.get("breaker"))
    return ProviderUse(
        key=key,
        name=about["name"],
        base_url=about["base_url"],
        limits=tuple(one for one in limits if one.amount is not None),
        in_flight=in_flight,
        waiting=dict(waiting),
        requests_per_minute=requests,
        tokens_per_minute=tokens,
        granted=int(state.get("granted", 0)),
        refused=int(state.get("refused", 0)),
        waits=int(state.get("waited", 0)),
        breaker=breaker.word(now),
        paused_s=max(0.0, (float(state.get("pause", 0)) - now) / 1e6),
        outage_s=max(0.0, (now - breaker.since) / 1e6) if breaker.opens else 0.0,
        blocked_by=state.get("blocked", ""),
    )


def _limit(name: str, given: float | None, state: dict[str, str]) -> LimitUse:
    amount, source = given, "manifest"
    if f"{name}:set" in state:
        amount, source = float(state[f"{name}:set"]), "set"
    told = state.get(f"{name}:told")
    if told is not None and (amount is None or float(told) < amount):
        amount, source = float(told), "told"
    learned = state.get(f"{name}:learned")
    if learned is not None:
        found = read_learned(learned).amount
        if amount is None or found < amount:
            amount, source = found, "found"
    return LimitUse(name, given, amount, source)


def read_learned(text: str) -> Learned:
    """Reads what the scripts write."""
    floor, top, plateau, age, grown, cut, spent, quick = json.loads(text)
    return Learned(floor, top, plateau, age, grown, cut, spent, int(quick))


def _breaker(text: str | None) -> Breaker:
    if text is None:
        return Breaker()
    fails, since, opens, opened, until, probe_until, probe = json.loads(text)
    return Breaker(fails, since, opens, opened, until, probe, probe_until)


def _metered(state: Mapping[str, str], now: float) -> tuple[float, float]:
    if "meter:at" not in state:
        return 0.0, 0.0
    at, since, requests, tokens = (
        float(state[f"meter:{part}"]) for part in ("at", "from", "requests", "tokens")
    )
    left = math.exp(-max(0.0, now - at) / METER_US)
    span = METER_US * (1 - math.exp(-max(now - since, METER_US / 10) / METER_US))
    return requests * left / span * _MINUTE_US, tokens * left / span * _MINUTE_US


def _hash(client: redis.Redis, key: str) -> dict[Any, Any]:
    return cast("dict[Any, Any]", client.hgetall(key))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
