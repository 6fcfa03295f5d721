"""The ledger in Redis as workers use it: who runs an item, and what became of it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import redis

from batchq.broker.signing import NotSigned, Signer
from batchq.ledger import keys
from batchq.ledger.connection import or_queue_error
from batchq.outcome import Json, Outcome, Summary, Usage
from batchq.plan import StepSpec, decode, encode
from batchq.ports import LATER, TRIED, Claim, ClaimResult, ItemRef
from batchq.progress import RunState

SUMMARY_COUNTERS = (
    *("ok", "failed", "retries", "repaired", "cached"),
    *("upload_calls", "upload_nusd"),
)
USAGE_COUNTERS = ("calls", "input_tokens", "output_tokens", "cost_nusd", "unpriced_calls")


class RedisWorkerLedger:
    """Implements `ports.WorkerLedger`; safe to share between threads."""

    def __init__(
        self,
        client: redis.Redis,
        on_end: Callable[[StepSpec | None, Outcome], None] = lambda _spec, _outcome: None,
        *,
        signer: Signer | None = None,
    ) -> None:
        self.client = client
        self._signer = signer  # without one, what others wrote is taken as ours
        self._on_end = on_end  # is told of each outcome that is kept
        folder = Path(__file__).parent
        self._claim = client.register_script((folder / "claim.lua").read_text("utf-8"))
        self._commit = client.register_script((folder / "commit.lua").read_text("utf-8"))
        self._specs: dict[tuple[str, int], StepSpec] = {}

    @or_queue_error
    def claim(self, ref: ItemRef, owner: str) -> ClaimResult:
        """See ports.WorkerLedger."""
        reply = self._claim(
            keys=[
                keys.run(ref.run),
                keys.open_batches(ref.run),
                keys.outcomes(ref.run, ref.step, ref.batch),
                keys.leases(ref.run, ref.step, ref.batch),
                keys.checkpoints(ref.run, ref.step, ref.batch),
                keys.brought(ref.run, ref.step, ref.batch),
            ],
            args=[
                *(f"{ref.step}:{ref.batch}", ref.index, owner, keys.ALIVE),
                *(uuid.uuid4().hex[:12], TRIED),
            ],
        )
        kept = {
            stage: json.loads(value) for stage, value in zip(reply[4::2], reply[5::2], strict=True)
        }
        has_budget = len(reply) > 2 and bool(reply[2])
        brought = str(reply[3]) if len(reply) > 3 else ""
        return ClaimResult(Claim(reply[0]), kept, int(reply[1]), has_budget, brought)

    @or_queue_error
    def checkpoint(self, ref: ItemRef, stage: str, value: Json) -> None:
        """See ports.WorkerLedger."""
        key = keys.checkpoints(ref.run, ref.step, ref.batch)
        self.client.hset(key, f"{ref.index}:{stage}", json.dumps(value))

    @or_queue_error
    def commit(self, ref: ItemRef, outcome: Outcome) -> bool:
        """See ports.WorkerLedger."""
        line, added = failure_line(outcome), counted(outcome)
        kept = self._commit(
            keys=[
                keys.run(ref.run),
                keys.open_batches(ref.run),
                keys.outcomes(ref.run, ref.step, ref.batch),
                keys.leases(ref.run, ref.step, ref.batch),
                keys.counters(ref.run, ref.step),
                keys.recent(ref.run),
            ],
            args=[f"{ref.step}:{ref.batch}", ref.index, encode(outcome), line, ref.step, *added],
        )
        if kept:
            self.note_end(ref, outcome)
        return bool(kept)

    def note_end(self, ref: ItemRef, outcome: Outcome) -> None:
        """Tells of an outcome that was kept."""
        self._on_end(self._specs.get((ref.run, ref.step)), outcome)

    @or_queue_error
    def release(self, ref: ItemRef, *, starts: int = 0, until: float = 0.0) -> None:
        """See ports.WorkerLedger."""
        key, index = keys.leases(ref.run, ref.step, ref.batch), str(ref.index)
        if until:
            self.client.hset(key, index, f"{starts} {LATER} {until:.0f}")
        else:
            self.client.hdel(key, index)

    @or_queue_error
    def is_running(self, run: str) -> bool:
        """See ports.WorkerLedger."""
        return self.client.hget(keys.run(run), "state") == RunState.RUNNING.value

    @or_queue_error
    def beat(self, owner: str, ttl_s: float, about: Mapping[str, Any] | None = None) -> None:
        """Says that `owner` is alive for `ttl_s` more seconds; `about` says who that is."""
        self.client.set(keys.ALIVE + owner, json.dumps(about or {}), px=round(ttl_s * 1000))

    @or_queue_error
    def clock_skew_s(self) -> float:
        """How far this host's clock is before that of Redis."""
        before = time.time()
        seconds, micros = self.client.time()
        return (before + time.time()) / 2 - (seconds + micros / 1e6)

    def spec(self, run: str, step: int) -> StepSpec | None:
        """What a worker needs to know of a step; None if the run is unknown here.

        Raises NotSigned for one that none of us wrote.
        """
        if (run, step) not in self._specs:
            text = self.client.get(keys.step(run, step))
            if text is None:
                return None
            if len(self._specs) > 256:
                self._specs.clear()
            opened = self._opened(keys.step(run, step), str(text))
            self._specs[run, step] = decode(StepSpec, opened)
        return self._specs[run, step]

    def _opened(self, key: str, text: str) -> str:
        try:
            return self._signer.open(key, text) if self._signer else text
        except NotSigned as error:
            raise NotSigned(f"what Redis says of this run ({key}) is {error}") from error


def amounts(summary: Summary) -> Iterator[tuple[str, int]]:
    """What a summary adds to a step's counters."""
    for name in SUMMARY_COUNTERS:
        yield name, getattr(summary, name)
    for name in USAGE_COUNTERS:
        yield name, getattr(summary.usage, name)


def counted(outcome: Outcome) -> list[str | int]:
    """What an outcome adds to a step's counters: name, amount, name, amount, ..."""
    return [part for pair in amounts(Summary.of(outcome)) if pair[1] for part in pair]


def failure_line(outcome: Outcome) -> str:
    """What the list of recent failures says of an outcome; empty for one that is ok."""
    if outcome.error is None:
        return ""
    return f"{outcome.item_id}: {outcome.error.kind}: {outcome.error.message[:200]}"


def summary_of(counters: Mapping[str, int]) -> Summary:
    """Reads a step's counters as a summary."""
    usage = Usage(**{name: counters.get(name, 0) for name in USAGE_COUNTERS})
    return Summary(**{name: counters.get(name, 0) for name in SUMMARY_COUNTERS}, usage=usage)
