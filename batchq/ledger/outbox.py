"""Notices that are to be sent, in Redis, so that a coordinator that dies takes none with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import redis

from batchq.ledger import keys
from batchq.ledger.connection import move_on, or_queue_error

# The end of a run may be done twice; what was put in once is not put in again.
PUT = """
if redis.call('HSETNX', KEYS[1], ARGV[1], 1) == 0 then return 0 end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
return 1
"""


@dataclass(frozen=True, slots=True)
class Letter:
    """A notice for one hook of a run's plan, and how often it was tried to send it."""

    name: str
    run: str
    hook: int
    notice: Mapping[str, Any]
    tries: int = 0


class RedisOutbox:
    """Keeps letters until they are sent."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._put = client.register_script(PUT)

    @or_queue_error
    def put(self, letter: Letter, now: float) -> bool:
        """Takes a letter, once; says whether it was new."""
        names = [keys.notified(letter.run), keys.OUTBOX, keys.LETTERS]
        return bool(self._put(keys=names, args=[letter.name, now, _text(letter)]))

    @or_queue_error
    def take(self, now: float, *, again_s: float) -> list[Letter]:
        """Takes the letters that are due; each is due again after `again_s` by itself."""
        due = cast("list[str]", self.client.zrangebyscore(keys.OUTBOX, 0, now))
        taken = []
        for name in due:
            if move_on(self.client, keys.OUTBOX, name, now + again_s):
                text = self.client.hget(keys.LETTERS, name)
                if text is None:
                    self.client.zrem(keys.OUTBOX, name)
                else:
                    taken.append(Letter(name, **json.loads(cast("str", text))))
        return taken

    @or_queue_error
    def postpone(self, letter: Letter, until: float) -> None:
        """Keeps a letter that could not be sent for another try."""
        with self.client.pipeline() as pipe:
            pipe.hset(keys.LETTERS, letter.name, _text(letter))
            pipe.zadd(keys.OUTBOX, {letter.name: until})
            pipe.execute()

    @or_queue_error
    def remove(self, letter: Letter) -> None:
        """Forgets a letter that was sent, or given up."""
        with self.client.pipeline() as pipe:
            pipe.zrem(keys.OUTBOX, letter.name)
            pipe.hdel(keys.LETTERS, letter.name)
            pipe.execute()

    @or_queue_error
    def waiting(self, run: str) -> int:
        """How many letters of a run are still to be sent."""
        return len(self._names(run))

    @or_queue_error
    def of(self, run: str) -> list[Letter]:
        """The letters of a run that are still to be sent."""
        texts = ((name, self.client.hget(keys.LETTERS, name)) for name in self._names(run))
        return [Letter(name, **json.loads(cast("str", text))) for name, text in texts if text]

    def _names(self, run: str) -> list[str]:
        names = cast("list[str]", self.client.zrange(keys.OUTBOX, 0, -1))
        return [name for name in names if name.startswith(f"{run}:")]


def _text(letter: Letter) -> str:
    about = {"run": letter.run, "hook": letter.hook, "tries": letter.tries}
    return json.dumps({**about, "notice": dict(letter.notice)})
