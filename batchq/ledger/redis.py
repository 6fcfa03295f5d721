"""The ledger in Redis: the truth about what is in flight."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any, cast

import redis
from redis.client import NEVER_DECODE
from redis.exceptions import LockError
from redis.lock import Lock

from batchq.broker.signing import NotSigned, Signer
from batchq.ledger import keys
from batchq.ledger.connection import move_on, or_queue_error
from batchq.ledger.worker import RedisWorkerLedger, amounts
from batchq.outcome import Outcome, Summary
from batchq.plan import StepSpec, decode, encode
from batchq.ports import LATER, TRIED, Lease, OpenBatch
from batchq.progress import RunState

LOCK_S = 15.0
LATE_S = 30.0
# A resume may come between the look at the state and this; then the run stays due.
REST = """
local state, since = unpack(redis.call('HMGET', KEYS[1], 'state', 'since'))
if state ~= 'paused' then return end
redis.call('ZREM', KEYS[2], ARGV[1])
if since then redis.call('HSET', KEYS[1], 'rested', since) end
"""
# Of those who halt a run at once, the first says why; a person's word is not overwritten.
HALT = """
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'reason', ARGV[3], 'since', ARGV[4])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return 1
"""
NOTHING = Summary()
# Closed, a batch has no outcomes: opened again by a look that came too late, it would run twice.
REOPEN = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
FORGET_AFTER_S = 24 * 3600  # a finished run can still be watched for a day


class RedisLedger(RedisWorkerLedger):
    """Implements both sides of the ledger; safe to share between threads."""

    def __init__(
        self,
        client: redis.Redis,
        on_end: Callable[[StepSpec | None, Outcome], None] = lambda _spec, _outcome: None,
        *,
        signer: Signer | None = None,
    ) -> None:
        super().__init__(client, on_end, signer=signer)
        self._rest = client.register_script(REST)
        self._halt = client.register_script(HALT)
        self._reopen = client.register_script(REOPEN)

    # The coordinator's side.

    @or_queue_error
    def register(self, run: str, about: dict[str, str], specs: Sequence[StepSpec]) -> None:
        """Makes a run known: what a coordinator needs to take it up, and its steps for workers."""
        with self.client.pipeline() as pipe:
            state = {"state": RunState.RUNNING.value, "reason": ""}
            seal = {"seal": self._sealed(keys.run(run), _place(about))}
            pipe.hset(keys.run(run), mapping=cast("Any", about | state | seal))
            pipe.persist(keys.run(run))
            for spec in specs:
                text = self._sealed(keys.step(run, spec.number), encode(spec).decode())
                pipe.set(keys.step(run, spec.number), text)
            pipe.zadd(keys.RUNS, {run: float(about["created_at"])})
            pipe.zadd(keys.DUE, {run: 0})
            pipe.execute()

    @or_queue_error
    def rewind(self, run: str, steps: Sequence[int]) -> None:
        """Lets a run be taken up from its folder again; keeps outcomes that are not in it yet."""
        with self.client.pipeline() as pipe:
            pipe.delete(keys.open_batches(run), *(keys.counters(run, step) for step in steps))
            pipe.execute()

    @or_queue_error
    def about(self, run: str) -> dict[str, str]:
        """The run's own hash; empty if the run is unknown here."""
        return cast("dict[str, str]", self.client.hgetall(keys.run(run)))

    def check_place(self, run: str, about: Mapping[str, str]) -> None:
        """Raises NotSigned unless one of us said where the folder and the catalog of a run are."""
        if self._signer and self._opened(keys.run(run), about.get("seal", "")) != _place(about):
            raise NotSigned("changed after it was signed")

    def _sealed(self, key: str, text: str) -> str:
        return self._signer.seal(key, text) if self._signer else text

    @or_queue_error
    def state(self, run: str) -> RunState | None:
        """Where a run stands; None if it is unknown here."""
        state = self.client.hget(keys.run(run), "state")
        return RunState(str(state)) if state else None

    @or_queue_error
    def set_state(self, run: str, state: RunState, reason: str = "") -> None:
        """Moves a run to another state, and lets its coordinator look at it at once."""
        with self.client.pipeline() as pipe:
            values = {"state": state.value, "reason": reason, "since": f"{time.time():.3f}"}
            pipe.hset(keys.run(run), mapping=cast("Any", values))
            pipe.zadd(keys.DUE, {run: 0})
            pipe.execute()

    @or_queue_error
    def halt(self, run: str, state: RunState, reason: str) -> bool:
        """Stops a run that goes on; says whether it was this that stopped it."""
        args = [run, state.value, reason, f"{time.time():.3f}"]
        return bool(self._halt(keys=[keys.run(run), keys.DUE], args=args))

    @or_queue_error
    def start_step(
        self,
        run: str,
        step: int,
        *,
        total: int,
        batches: int,
        max_failures: int | None,
        done: Summary,
    ) -> None:
        """Sets the counters of a step whose items are known; `done` is in its folder already."""
        values: dict[str, int] = {"total": total, "batches": batches, "next": 0}
        values.update(amounts(done))
        if max_failures is not None:
            values["max_failures"] = max_failures
        with self.client.pipeline() as pipe:
            pipe.delete(keys.counters(run, step))
            pipe.hset(keys.counters(run, step), mapping=cast("Any", values))
            pipe.execute()

    @or_queue_error
    def counters(self, run: str, step: int) -> dict[str, int]:
        """The step's counters; empty until it is started."""
        values = cast("dict[str, str]", self.client.hgetall(keys.counters(run, step)))
        return {name: int(value) for name, value in values.items()}

    @or_queue_error
    def set_counters(self, run: str, step: int, values: Mapping[str, int]) -> None:
        """Sets some of a step's counters."""
        self.client.hset(keys.counters(run, step), mapping=cast("Any", dict(values)))

    @or_queue_error
    def open_batch(
        self,
        run: str,
        step: int,
        batch: int,
        outcomes: Sequence[Outcome] = (),
        *,
        dispatches: int,
        uncounted: Summary = NOTHING,
        stages: Mapping[str, str] = MappingProxyType({}),
        brought: Mapping[int, str] = MappingProxyType({}),
    ) -> float:
        """Opens a batch for its items, or again, with the outcomes it has from before.

        `uncounted` is what no counter knows yet, `stages` what `stages` said when it was left,
        `brought` what uploads brought for its items.
        Returns the time that its messages are to bear.
        """
        sent_at = round(time.time(), 3)
        with self.client.pipeline() as pipe:
            pipe.hset(keys.open_batches(run), f"{step}:{batch}", f"{sent_at:.3f} {dispatches}")
            for name, amount in amounts(uncounted):
                if amount:
                    pipe.hincrby(keys.counters(run, step), name, amount)
            if outcomes:
                pipe.hset(
                    keys.outcomes(run, step, batch),
                    mapping={str(one.index): encode(one).decode() for one in outcomes},
                )
            for name, value in stages.items():
                pipe.hsetnx(keys.checkpoints(run, step, batch), name, value)
            if brought:
                pipe.hset(keys.brought(run, step, batch), mapping=cast("Any", dict(brought)))
            pipe.execute()
        return sent_at

    @or_queue_error
    def reopen_batch(
        self, run: str, step: int, batch: int, opened: OpenBatch, *, dispatches: int
    ) -> float | None:
        """Notes that a batch is sent again; None, and nothing, if it is not as `opened` was read.

        Somebody else may have settled it since, and its outcomes are gone with that.
        """
        sent_at = round(time.time(), 3)
        before, now = (
            f"{at:.3f} {often}"
            for at, often in ((opened.sent_at, opened.dispatches), (sent_at, dispatches))
        )
        done = self._reopen(keys=[keys.open_batches(run)], args=[f"{step}:{batch}", before, now])
        return sent_at if done else None

    @or_queue_error
    def close_batch(self, run: str, step: int, batch: int, *, keep_stages: bool = False) -> None:
        """Forgets an open batch: it is in the run folder now.

        With `keep_stages` not what the stages of its items gave, for items that are yet to end.
        """
        with self.client.pipeline() as pipe:
            pipe.hdel(keys.open_batches(run), f"{step}:{batch}")
            of_batch = (keys.outcomes, keys.leases, keys.brought)
            pipe.delete(*(key(run, step, batch) for key in of_batch))
            if not keep_stages:
                pipe.delete(keys.checkpoints(run, step, batch))
            pipe.execute()

    @or_queue_error
    def open_batches(self, run: str) -> dict[tuple[int, int], OpenBatch]:
        """(step, batch) -> the batches that are in flight."""
        found = cast("dict[str, str]", self.client.hgetall(keys.open_batches(run)))
        batches = {}
        for name, value in found.items():
            step, batch = name.split(":")
            at, dispatches = value.split(" ")
            batches[int(step), int(batch)] = OpenBatch(float(at), int(dispatches))
        return batches

    @or_queue_error
    def outcomes(self, run: str, step: int, batch: int) -> list[Outcome]:
        """The outcomes of an open batch so far, by index."""
        found = cast("dict[str, str]", self.client.hgetall(keys.outcomes(run, step, batch)))
        return sorted(
            (decode(Outcome, text) for text in found.values()), key=lambda outcome: outcome.index
        )

    @or_queue_error
    def stages(self, run: str, step: int, batch: int) -> dict[str, str]:
        """What stages of an open batch's items gave: "index:stage" -> its value as JSON.

        Items that gave something have tries, too, by which their next claim knows of the rest.
        """
        found = cast("dict[str, str]", self.client.hgetall(keys.checkpoints(run, step, batch)))
        indexes = {name.partition(":")[0] for name in found}
        return {f"{index}:{TRIED}": "[]" for index in sorted(indexes)} | found

    @or_queue_error
    def leases(self, run: str, step: int, batch: int) -> dict[int, Lease]:
        """Index -> who started an item that has no outcome yet."""
        found = cast("dict[str, str]", self.client.hgetall(keys.leases(run, step, batch)))
        parts = {int(index): lease.split(" ", 1) for index, lease in found.items()}
        return {index: Lease(_owner(name), int(starts)) for index, (starts, name) in parts.items()}

    @or_queue_error
    def queue_length(self, queue: str) -> int:
        """How many messages wait in a queue."""
        return int(self.client.llen(queue))

    @or_queue_error
    def oldest_message(self, queue: str) -> float:
        """When the message was sent that is next in a queue; infinity for an empty queue.

        One that is not ours counts as old: it is refused soon, and what is behind it comes next.
        """
        command: Any = self.client.execute_command  # the queue may hold anything: no texts
        text = command("LINDEX", queue, -1, **{NEVER_DECODE: True})
        if text is None:
            return math.inf
        try:
            return float(json.loads(text)["headers"].get(keys.SENT_AT, 0.0))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return 0.0

    @or_queue_error
    def in_flight(self, run: str) -> int:
        """How many items run right now, on all hosts."""
        with self.client.pipeline(transaction=False) as pipe:
            for step, batch in self.open_batches(run):
                pipe.hvals(keys.leases(run, step, batch))
            leases = [lease for found in pipe.execute() for lease in found]
        return sum(lease.split(" ")[1] != LATER for lease in leases)

    @or_queue_error
    def recent(self, run: str) -> tuple[str, ...]:
        """The last failures, newest first."""
        return tuple(cast("list[str]", self.client.lrange(keys.recent(run), 0, 19)))

    @or_queue_error
    def rest(self, run: str) -> None:
        """Lets nobody look at a paused run until it is taken up again."""
        self._rest(keys=[keys.run(run), keys.DUE], args=[run])

    @or_queue_error
    def is_resting(self, run: str) -> bool:
        """Whether a coordinator has written down that a run is paused or over."""
        return self.client.zscore(keys.DUE, run) is None

    @or_queue_error
    def quiesce(self, run: str, queues: Sequence[str]) -> None:
        """Lets nothing of a run move whose broker nobody uses: no message, no lock, no look."""
        with self.client.pipeline() as pipe:
            pipe.delete(*queues, keys.lock(run))
            pipe.zrem(keys.DUE, run)
            pipe.hset(keys.run(run), "state", RunState.PAUSED.value)
            pipe.execute()

    @or_queue_error
    def forget(self, run: str) -> None:
        """Lets a run that is over fade: its keys expire after a day."""
        pattern = keys.run(run).removesuffix(":run").replace("{", "\\{").replace("}", "\\}")
        with self.client.pipeline() as pipe:
            for key in self.client.scan_iter(match=f"{pattern}:*", count=1000):
                pipe.expire(key, FORGET_AFTER_S)
            pipe.zrem(keys.RUNS, run)
            pipe.zrem(keys.DUE, run)
            pipe.execute()

    # Who looks at which run, and when.

    @or_queue_error
    def look_at(self, run: str, delay_s: float = 0.0) -> None:
        """Lets a coordinator look at the run after `delay_s`, or earlier if that was asked for."""
        self.client.zadd(keys.DUE, {run: time.time() + delay_s if delay_s else 0}, lt=True)

    @or_queue_error
    def take_due(self, now: float, *, again_s: float) -> list[str]:
        """Takes the runs that are due; each comes up again after `again_s` by itself."""
        due = cast("list[str]", self.client.zrangebyscore(keys.DUE, 0, now))
        return [run for run in due if move_on(self.client, keys.DUE, run, now + again_s)]

    @or_queue_error
    def is_registered(self, run: str) -> bool:
        """Whether a run is yet to be ended, and forgotten."""
        return self.client.zscore(keys.RUNS, run) is not None

    @or_queue_error
    def runs(self) -> list[str]:
        """The runs that are not over, oldest first."""
        return cast("list[str]", self.client.zrange(keys.RUNS, 0, -1))

    @or_queue_error
    def alive(self) -> dict[str, dict[str, Any]]:
        """Owner -> what it says about itself, of every process that is alive."""
        names = list(self.client.scan_iter(match=keys.ALIVE + "*", count=1000))
        values = self.client.mget(names) if names else []
        return {
            str(name).removeprefix(keys.ALIVE): json.loads(cast("str", value))
            for name, value in zip(names, cast("list[Any]", values), strict=True)
            if value
        }

    @contextmanager
    def lock(self, run: str, key: Callable[[str], str] = keys.lock) -> Iterator[bool]:
        """Holds the right to advance a run; yields False if somebody else has it.

        With `key` another right of the run.
        """
        lock = self.client.lock(key(run), timeout=LOCK_S, blocking=False, thread_local=False)
        held = lock.acquire()
        ended = threading.Event()
        if held:
            threading.Thread(target=_keep, args=(lock, ended), daemon=True).start()
        try:
            yield held
        finally:
            ended.set()
            if held:
                with suppress(LockError):  # it ran out while we stood still; nothing to give back
                    lock.release()


def _place(about: Mapping[str, str]) -> str:
    return json.dumps([about.get("folder", ""), about.get("catalog", "")])


def _owner(name: str) -> str:
    """Who runs an item; nobody, if it should have come back long ago."""
    word, _, rest = name.partition(" ")
    if word == LATER and rest:
        return LATER if time.time() < float(rest) + LATE_S else ""
    return word


def _keep(lock: Lock, ended: threading.Event) -> None:
    """Renews a lock while its holder works, however long that is; not after it died."""
    while not ended.wait(LOCK_S / 3):
        try:
            lock.reacquire()
        except redis.RedisError:
            return
