"""Runs scripts on a Redis, those of many threads in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.commands.core import Script
from redis.exceptions import RedisError

from batchq.broker.together import Together


@dataclass(frozen=True, slots=True)
class _Asked:
    script: Script
    keys: Sequence[Any]
    args: Sequence[Any]

    def alone(self) -> Any:
        return self.script(keys=self.keys, args=self.args)


class Scripts:
    """Runs scripts on one Redis; what threads ask for at the same time goes in one pipeline.

    To get a connection, to write to it and to wait for an answer take several times what a short
    script does itself. A script is loaded when it is first used, and again when Redis has forgotten
    it. Safe for threads and greenlets as the client is.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._together: Together[_Asked, Any] = Together(self._ask)

    def register(self, text: str) -> Script:
        """Makes a script known here."""
        return self._client.register_script(text)

    def run(self, script: Script, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """Returns what a script does; raises RedisError."""
        asked = _Asked(script, keys, args)
        answer = self._together.ask(asked)
        # By itself it is loaded, waits for Redis to have memory again, or says what is wrong.
        return asked.alone() if isinstance(answer, RedisError) else answer

    def _ask(self, asked: Sequence[_Asked]) -> Sequence[Any]:
        if len(asked) == 1:
            return [asked[0].alone()]
        with self._client.pipeline(transaction=False) as pipe:
            for one in asked:
                pipe.evalsha(one.script.sha, len(one.keys), *one.keys, *one.args)
            return list(pipe.execute(raise_on_error=False))
