"""A Redis result backend that loses no chord part and keeps no results that nobody reads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from celery import states
from celery.backends.redis import RedisBackend
from celery.backends.redis import SentinelBackend as CelerySentinelBackend
from celery.result import GroupResult
from redis.connection import BlockingConnectionPool

from batchq.broker.redisclient import MOST_CONNECTIONS
from batchq.queue.deaths import DEATHS, note_death

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """A header task that has ended, as far as its chord wants to know."""

    id: str
    group: str
    group_index: int
    chord: Any
    result: str = ""

    def ended(self, result: str) -> Self:
        """The same with its result."""
        return replace(self, result=result)


class Backend(RedisBackend):
    """Retries the chord part until it lands; stock Celery gives the whole chord up."""

    app: Any  # the stubs do not know these
    chord_expires: int | None
    _chord_zset: bool

    def _get_pool(self, **params: Any) -> Any:
        """Lets a slot wait for a connection where all are in use; see `broker.redisclient`."""
        make: Any = BlockingConnectionPool  # redis-py gives it no types
        return make(**{**params, "max_connections": MOST_CONNECTIONS})

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Saves a header that has groups in it.

        Of any other, stock Celery saves nothing, but subscribes to its results and keeps them in
        memory until they come: for ever, since ours are ignored.
        """
        results = header_result_args[1]
        if not isinstance(results, list) or any(isinstance(one, GroupResult) for one in results):
            super().apply_chord(header_result_args, body, **kwargs)

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: Any = None, **kwargs: Any
    ) -> None:
        """Counts a finished header task, with the backend's own retry policy around it."""
        count = super().on_chord_part_return
        self.ensure(lambda: count(request, state, result, propagate, **kwargs), ())

    def count_parts(self, parts: Sequence[Part]) -> None:
        """Counts many header tasks that have ended, in one round trip a chord."""
        groups: dict[str, list[Part]] = {}
        for part in parts:
            groups.setdefault(part.group, []).append(part)
        for group, members in groups.items():
            if self.ensure(lambda: self._count(group, members), ()):  # noqa: B023 (called at once)
                last = members[-1]
                self.on_chord_part_return(last, states.SUCCESS, last.result)

    def _count(self, group: str, parts: Sequence[Part]) -> int:
        args: list[Any] = ["1" if self._chord_zset else "0", self.chord_expires or 0]
        for part in parts:
            result = self.encode([1, part.id, states.SUCCESS, part.result])
            args += (f"{part.id}:{part.group_index}", part.group_index, result)
        keys = [self.get_key_for_group(group, name) for name in (".j", ".d", ".c", ".s", ".t")]
        return int(self._parts(keys=keys, args=args, client=self.client))

    @cached_property
    def _parts(self) -> Any:
        text = (Path(__file__).parent / "parts.lua").read_text("utf-8")
        return self.client.register_script(text)

    def mark_as_failure(  # type: ignore[override]  # the stub has other names
        self,
        task_id: str,
        exc: Exception,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> None:
        """Notes why the process of an item died, before its chord is told."""
        if isinstance(exc, DEATHS) and request is not None:
            note_death(self.app.services, request.task, request.args, exc)
        super().mark_as_failure(task_id, exc, traceback, request, **kwargs)

    def chord_error_from_stack(self, callback: Any, exc: Any = None) -> Any:
        """Sends the callback of a chord that failed, as that of one that did not.

        A header task fails only when its process dies, and the callback finds out by the ledger.
        An error callback would say the same, and make every message of the header half as long
        again.
        """
        log.warning("a chord failed, its batch is looked at all the same: %s", exc)
        return callback.delay()


class SentinelBackend(Backend, CelerySentinelBackend):
    """The same by way of Sentinels."""

    def _get_pool(self, **params: Any) -> Any:
        return CelerySentinelBackend._get_pool(self, **params)  # type: ignore[attr-defined]
