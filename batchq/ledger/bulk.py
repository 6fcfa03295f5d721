"""Many items in one round trip: their messages, their claims, their outcomes.

For items that take less time than a round trip does; `queue.feeding` says which. What a claim and
an outcome mean is as in `ledger.worker`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.client import NEVER_DECODE
from redis.exceptions import NoScriptError

from batchq.ledger import keys
from batchq.ledger.connection import or_queue_error
from batchq.ledger.worker import RedisWorkerLedger, counted, failure_line
from batchq.outcome import Outcome
from batchq.plan import encode
from batchq.ports import TRIED, Claim, ItemRef

HAND_S = 3600
_Batch = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Claimed:
    """What became of the claims: those that are not in `verdicts` were started before by somebody,
    and are to be claimed one by one.
    """  # noqa: D205 (one sentence)

    verdicts: Mapping[ItemRef, Claim]
    with_budget: frozenset[str]  # runs whose calls are paid out of one


class BulkLedger:
    """What `RedisWorkerLedger` does, for many items at once; safe to share between threads."""

    def __init__(self, ledger: RedisWorkerLedger) -> None:
        self._ledger = ledger
        self._client = ledger.client
        folder = Path(__file__).parent
        texts = {
            name: (folder / f"{name}.lua").read_text("utf-8")
            for name in ("take", "claim_many", "commit_many")
        }
        self._take = self._client.register_script(texts["take"])
        self._claim = self._client.register_script(texts["claim_many"])
        self._commit = self._client.register_script(texts["commit_many"])

    @or_queue_error
    def take(
        self, queue: str, hand: str, *, most: int, most_bytes: int, marks: Sequence[str]
    ) -> list[bytes]:
        """Takes messages off a queue as long as the oldest one has all `marks` in its text.

        They are also kept under the name `hand`, in place of those that were taken before.
        """
        # Whatever is in the queue may be no text.
        command: Any = self._client.execute_command
        args = (queue, keys.HAND + hand, most, most_bytes, HAND_S, *marks)
        try:
            return list(command("EVALSHA", self._take.sha, 2, *args, **{NEVER_DECODE: True}))
        except NoScriptError:
            return list(command("EVAL", self._take.script, 2, *args, **{NEVER_DECODE: True}))

    @or_queue_error
    def drop(self, hand: str) -> None:
        """Says that what was taken is done with."""
        self._client.delete(keys.HAND + hand)

    @or_queue_error
    def hands_of(self, owner: str) -> dict[str, list[bytes]]:
        """Takes what the slots of a process that is dead had in hand: queue -> messages."""
        found: dict[str, list[bytes]] = {}
        command: Any = self._client.execute_command
        for name in self._client.scan_iter(match=f"{keys.HAND}{owner}/*", count=1000):
            queue = str(name).split("/")[-2]
            texts = command("LRANGE", name, 0, -1, **{NEVER_DECODE: True})
            found.setdefault(queue, []).extend(reversed(texts))
            self._client.delete(name)
        return found

    @or_queue_error
    def give_back(self, queue: str, texts: Sequence[bytes], refs: Sequence[ItemRef] = ()) -> None:
        """Puts messages back where they were taken, in their order.

        `refs` are those of them that were claimed and not run.
        """
        with self._client.pipeline() as pipe:
            for ref in refs:
                pipe.hdel(keys.leases(ref.run, ref.step, ref.batch), str(ref.index))
            pipe.rpush(queue, *reversed(texts))
            pipe.execute()

    @or_queue_error
    def push(self, queue: str, text: bytes) -> None:
        """Puts a message where new ones go, behind all others."""
        self._client.lpush(queue, text)

    @or_queue_error
    def claim(self, refs: Sequence[ItemRef], owner: str) -> Claimed:
        """Claims items that nobody has started yet."""
        batches: dict[_Batch, list[ItemRef]] = {}
        for ref in refs:
            batches.setdefault((ref.run, ref.step, ref.batch), []).append(ref)
        question = uuid.uuid4().hex[:12]
        verdicts: dict[ItemRef, Claim] = {}
        with_budget = set()
        for (run, step, batch), members in batches.items():
            has_budget, *found = self._claim(
                keys=[
                    keys.run(run),
                    keys.open_batches(run),
                    keys.outcomes(run, step, batch),
                    keys.leases(run, step, batch),
                    keys.checkpoints(run, step, batch),
                ],
                args=[f"{step}:{batch}", owner, question, TRIED, *(ref.index for ref in members)],
            )
            if has_budget:
                with_budget.add(run)
            pairs = zip(members, found, strict=True)
            verdicts.update({ref: Claim(word) for ref, word in pairs if word != "apart"})
        return Claimed(verdicts, frozenset(with_budget))

    @or_queue_error
    def commit(self, outcomes: Sequence[tuple[ItemRef, Outcome]]) -> frozenset[str]:
        """Keeps outcomes; returns those of their runs that do not go on."""
        batches: dict[_Batch, list[tuple[ItemRef, Outcome]]] = {}
        for pair in outcomes:
            ref = pair[0]
            batches.setdefault((ref.run, ref.step, ref.batch), []).append(pair)
        halted = set()
        for (run, step, batch), members in batches.items():
            args: list[Any] = [f"{step}:{batch}", step]
            for ref, outcome in members:
                amounts = counted(outcome)
                args += (ref.index, encode(outcome), failure_line(outcome))
                args += (len(amounts) // 2, *amounts)
            goes_on, *kept = self._commit(
                keys=[
                    keys.run(run),
                    keys.open_batches(run),
                    keys.outcomes(run, step, batch),
                    keys.leases(run, step, batch),
                    keys.counters(run, step),
                    keys.recent(run),
                ],
                args=args,
            )
            if not goes_on:
                halted.add(run)
            for is_kept, (ref, outcome) in zip(kept, members, strict=True):
                if is_kept:
                    self._ledger.note_end(ref, outcome)
        return frozenset(halted)
