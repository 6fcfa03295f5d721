"""The page of what is used of providers' limits, over all hosts and runs."""

from __future__ import annotations

from typing import Any

from redis import RedisError

from batchq.errors import QueueError, StoreError, UsageError
from batchq.limiter import RedisLimiter
from batchq.limiter.desk import MOVABLE, LimitUse, ProviderUse
from batchq.web.query import Query
from batchq.web.reader import AWAY, Reader


def read_limits(reader: Reader, _: Query) -> dict[str, Any]:
    """Every provider that was called lately."""
    providers: list[dict[str, Any]] = []
    problem = ""
    for services in reader.brokers():
        try:
            uses = RedisLimiter(services.redis).usage()
            providers += [_provider(use) | {"names": _names(reader, use)} for use in uses]
        except (QueueError, RedisError):
            problem = AWAY if reader.settings.broker_url else ""  # else a run has just ended
    return {"providers": providers, "movable": list(MOVABLE), "problem": problem}


def _names(reader: Reader, use: ProviderUse) -> dict[str, str]:
    """The names of the runs that wait, where our catalog has them."""
    try:
        found = {run: reader.listing.run(run) for run in (*use.waiting, *use.away)}
    except StoreError:  # the limits are in Redis all the same
        return {}
    return {run: f"{one.pipeline}@{one.version}" for run, one in found.items() if one}


def set_limit(reader: Reader, provider: str, name: str, text: str) -> str:
    """Sets a limit of a provider for all hosts, or goes back to the manifest's where text is "".

    Raises UsageError for a provider that is not known, and for what is no limit.
    """
    try:
        amount = float(text) if text else None
    except ValueError:
        raise UsageError(f"{name} is a number, not {text[:40]!r}") from None
    for services in reader.brokers():
        limiter = RedisLimiter(services.redis)
        for use in limiter.usage():
            if provider == use.key:
                limiter.set_limits(use.key, **{name: amount})
                if amount is None:
                    return f"{name} of {use.name} is the manifest's again."
                return f"{name} of {use.name} is {amount:,.0f} now, for all hosts."
    raise UsageError(f"no provider {provider[:80]!r} was called lately")


def _provider(use: ProviderUse) -> dict[str, Any]:
    return {
        "key": use.key,
        "name": use.name,
        "base_url": use.base_url,
        "in_flight": use.in_flight,
        "granted": use.granted,
        "refused": use.refused,
        "waits": use.waits,
        "waiting": dict(use.waiting),
        "away": list(use.away),
        "breaker": use.breaker,
        "paused_s": round(use.paused_s, 1),
        "outage_s": round(use.outage_s, 1),
        "blocked_by": use.blocked_by,
        "limits": [_limit(use, one) for one in use.limits],
    }


def _limit(use: ProviderUse, limit: LimitUse) -> dict[str, Any]:
    used = {
        "rpm": use.requests_per_minute,
        "tpm": use.tokens_per_minute,
        "concurrency": float(use.in_flight),
    }
    now = used.get(limit.name)
    return {
        "name": limit.name,
        "used": None if now is None else round(now, 1),
        "amount": limit.amount,
        "given": limit.given,
        "source": limit.source,
        "can_change": limit.name in MOVABLE,
    }
