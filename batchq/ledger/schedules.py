"""Manifests that are submitted by themselves, in Redis, so that any coordinator can do it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import redis

from batchq.ledger import keys
from batchq.ledger.connection import move_on, or_queue_error


@dataclass(frozen=True, slots=True)
class Entry:
    """A manifest, the command line that submits it, and when.

    `folder` is where it was applied, and on which `host`.
    """

    name: str
    file: str
    folder: str
    cron: str
    timezone: str
    overlap: str
    arguments: Sequence[str] = ()
    host: str = ""


@dataclass(frozen=True, slots=True)
class Due:
    """An entry and what is known of its times, in seconds since the epoch.

    `last` tells what became of the time before: when, run, error, what was skipped or missed.
    """

    entry: Entry
    at: float
    last: Mapping[str, Any] = field(default_factory=dict)


class RedisSchedules:
    """Keeps entries by name."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    @or_queue_error
    def put(self, entry: Entry, at: float) -> bool:
        """Adds or replaces an entry that is due next at this time; says whether it is new."""
        with self.client.pipeline() as pipe:
            pipe.hset(keys.SCHEDULES, entry.name, json.dumps(asdict(entry)))
            pipe.zadd(keys.SCHEDULED, {entry.name: at})
            is_new, _ = pipe.execute()
        return bool(is_new)

    @or_queue_error
    def remove(self, name: str) -> bool:
        """Forgets an entry; says whether there was one."""
        with self.client.pipeline() as pipe:
            pipe.hdel(keys.SCHEDULES, name)
            pipe.zrem(keys.SCHEDULED, name)
            pipe.hdel(keys.SCHEDULE_RESULTS, name)
            was_there, *_ = pipe.execute()
        return bool(was_there)

    @or_queue_error
    def all(self) -> list[Due]:
        """All entries, the one that is due next first."""
        with self.client.pipeline() as pipe:
            pipe.hgetall(keys.SCHEDULES)
            pipe.zrange(keys.SCHEDULED, 0, -1, withscores=True)
            pipe.hgetall(keys.SCHEDULE_RESULTS)
            entries, due, results = pipe.execute()
        return [
            Due(Entry(**json.loads(entries[name])), at, json.loads(results.get(name, "{}")))
            for name, at in due
            if name in entries
        ]

    @or_queue_error
    def take(self, due: Due, next_at: float) -> bool:
        """Takes a time that has come; False if another coordinator was first."""
        return move_on(self.client, keys.SCHEDULED, due.entry.name, next_at)

    @or_queue_error
    def tell(self, name: str, result: Mapping[str, Any]) -> None:
        """Keeps what became of an entry's last time."""
        self.client.hset(keys.SCHEDULE_RESULTS, name, json.dumps(dict(result)))
