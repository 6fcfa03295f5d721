"""Opens a Redis client that bears an outage for as long as its owner can wait."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    BusyLoadingError,
    ClusterCrossSlotError,
    MovedError,
    OutOfMemoryError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from batchq.broker.redisclient import open_client
from batchq.errors import QueueError

P = ParamSpec("P")
R = TypeVar("R")

OUTAGES = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, OutOfMemoryError)
"""What a patient client waits out: batches that are collated make room in a full Redis, too."""


def connect(url: str, *, patience_s: float) -> redis.Redis:
    """Opens a client whose commands are tried again for about `patience_s` while Redis is away.

    A worker is patient, since an answer that was paid for must reach the ledger; a command
    line is not.
    """
    tries = max(1, round(patience_s / 2))
    # A unix socket knows no keep-alive, and redis-py refuses to be told so.
    keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}
    return open_client(
        url,
        wait_s=patience_s,
        decode_responses=True,
        socket_timeout=30,
        socket_connect_timeout=min(5.0, max(1.0, patience_s)),
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=2.0, base=0.1), tries),
        retry_on_error=list(OUTAGES),
        **keepalive,
    )


def or_queue_error(method: Callable[P, R]) -> Callable[P, R]:
    """Lets a method raise QueueError where Redis fails it."""

    @functools.wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except (MovedError, ClusterCrossSlotError) as error:
            raise QueueError(
                "the broker is a part of a Redis Cluster, which spreads keys over servers, and "
                "Celery's queues want them on one: give the address of a single Redis, or of "
                "Sentinels"
            ) from error
        except MasterNotFoundError as error:
            raise QueueError("no Sentinel that answers knows a master by that name") from error
        except redis.RedisError as error:
            raise QueueError(f"Redis did not answer: {error}") from error

    return guarded


def move_on(client: redis.Redis, key: str, member: str, at: float) -> bool:
    """Moves what is due to a later time; says whether it was this call.

    Of several that saw the same thing due, only whoever moves its time forward has taken it.
    """
    return bool(client.zadd(key, {member: at}, xx=True, gt=True, ch=True))
