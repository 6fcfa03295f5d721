"""Reads and claims what slots take off a queue by themselves (`queue.feeding`)."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError
from kombu.serialization import loads, prepare_accept_content

from batchq.engine.tracing import place_of
from batchq.outcome import Json, Outcome
from batchq.plan import Item, StepSpec
from batchq.ports import Claim, ClaimResult, ItemRef
from batchq.queue import heart
from batchq.queue.backend import Part
from batchq.queue.light import as_ordinary
from batchq.queue.message import RUN_ITEM, decode_message
from batchq.queue.transport import flaw_of

if TYPE_CHECKING:
    from batchq.queue.app import BatchqApp
    from batchq.services import Services

log = logging.getLogger(__name__)

MOST_BYTES = 4 * 1024 * 1024
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, KombuError)


@dataclass(slots=True)
class Taken:
    """One message, read."""

    text: bytes
    ref: ItemRef
    item: Item
    spec: StepSpec
    place: str
    part: Part
    has_budget: bool = False


class Taker:
    """Takes items of one queue; what it has taken last is in its hand, by this name."""

    def __init__(self, app: BatchqApp, queue: str, name: str) -> None:
        self.app = app
        self.queue = queue
        self.hand = f"{heart.owner(app.services)}/{queue}/{name}"
        self._bulk = app.services.bulk
        self._is_full = False
        self._accept = prepare_accept_content(app.conf.accept_content)

    def take(self, most: int, marks: Sequence[str]) -> list[bytes]:
        """Takes the messages of some items, in place of those that were taken before."""
        take: Callable[..., list[bytes]] = self._bulk.take
        texts = take(self.queue, self.hand, most=most, most_bytes=MOST_BYTES, marks=marks)
        self._is_full = bool(texts)
        return texts

    def drop(self) -> None:
        """Has nothing in hand any more."""
        if self._is_full:
            self._bulk.drop(self.hand)
            self._is_full = False

    def claim(self, texts: Sequence[bytes]) -> tuple[list[Taken], list[Part]]:
        """What is to be run of these messages, and what is to be counted since it has ended.

        What is odd goes back to the queue, as a message that only the worker takes.
        """
        services = self.app.services
        taken: dict[ItemRef, Taken] = {}
        odd: list[bytes] = []
        for text in texts:
            one = self._read(text)
            if one is None or one.ref in taken:
                odd.append(text)
            else:
                taken[one.ref] = one
        claimed = self._bulk.claim(list(taken), heart.owner(services))
        ready: list[Taken] = []
        ended: list[Part] = []
        for ref, one in taken.items():
            verdict = claimed.verdicts.get(ref)
            if verdict is None:
                odd.append(one.text)
            elif verdict is Claim.RUN:
                one.has_budget = ref.run in claimed.with_budget
                ready.append(one)
            else:
                ended.append(one.part.ended(verdict.value))
        if odd:
            self._bulk.give_back(self.queue, [as_ordinary(text) for text in odd])
        return ready, ended

    def _read(self, text: bytes) -> Taken | None:
        """Reads a message as Celery would; None for one that is odd in any way."""
        try:
            payload = json.loads(text)
            headers, properties = payload["headers"], payload["properties"]
            if flaw_of(payload) or headers["task"] != RUN_ITEM:
                return None
            body: Any = payload["body"]
            if properties.get("body_encoding") == "base64":
                body = base64.b64decode(body)
            (message,), _, embed = loads(
                body, payload["content-type"], payload["content-encoding"], accept=self._accept
            )
            ref, item = decode_message(message)
            spec = self.app.services.ledger.spec(ref.run, ref.step)
            part = Part(headers["id"], headers["group"], headers["group_index"], embed["chord"])
        except _UNREADABLE as error:
            log.debug("a message is left to the worker: %s", error)
            return None
        return Taken(text, ref, item, spec, place_of(headers), part) if spec else None


@dataclass(frozen=True, slots=True)
class ClaimedLedger:
    """The ledger of an item that is claimed already; implements ports.WorkerLedger.

    `keep` takes its outcome. Whether it is the first one of the item is not known at once.
    """

    services: Services
    has_budget: bool
    keep: Callable[[ItemRef, Outcome], None]

    def claim(self, ref: ItemRef, owner: str) -> ClaimResult:  # noqa: ARG002 (done already)
        """See ports.WorkerLedger."""
        return ClaimResult(Claim.RUN, {}, 1, self.has_budget)

    def commit(self, ref: ItemRef, outcome: Outcome) -> bool:
        """See ports.WorkerLedger."""
        self.keep(ref, outcome)
        return True

    def checkpoint(self, ref: ItemRef, stage: str, value: Json) -> None:
        """See ports.WorkerLedger."""
        self.services.ledger.checkpoint(ref, stage, value)

    def release(self, ref: ItemRef, *, starts: int = 0, until: float = 0.0) -> None:
        """See ports.WorkerLedger."""
        self.services.ledger.release(ref, starts=starts, until=until)

    def is_running(self, run: str) -> bool:
        """See ports.WorkerLedger."""
        return self.services.ledger.is_running(run)
