"""A slot whose item has ended takes the next items itself, many in one round trip.

What a worker does for one message costs several times what an item does that takes no time: it is
fetched, decoded, handed to a slot, claimed, counted and told of one by one. So a slot that has run
a light item goes on with those that are next in its queue: it takes their messages at once, claims
them at once, and keeps their outcomes at once, for a second; then the worker has its say again.
Every item stays a message of its own that any worker of the app can run.

Whatever is not plain sailing goes back into the queue as a message that only the worker takes: an
item that was started before, one that cannot be read, one whose run is not known. Where somebody
looks at tasks' events, or a task was revoked, slots take nothing (`queue.request`).
"""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError
from kombu.serialization import loads, prepare_accept_content

from batchq.engine.runner import run_item
from batchq.engine.tracing import place_of, span
from batchq.errors import QueueError
from batchq.host.logs import log_context
from batchq.outcome import Json, Outcome
from batchq.plan import Item, StepSpec
from batchq.ports import Claim, ClaimResult, ItemRef
from batchq.progress import RunState
from batchq.queue import heart
from batchq.queue.backend import Part
from batchq.queue.leave import is_leaving
from batchq.queue.light import LIGHT_MARK, as_ordinary
from batchq.queue.message import RUN_ITEM, decode_message
from batchq.queue.transport import flaw_of

if TYPE_CHECKING:
    from batchq.engine.runner import Receipt
    from batchq.queue.app import BatchqApp
    from batchq.services import Services

log = logging.getLogger(__name__)

FEED_S = 1.0
"""How long a slot goes on; a worker that is told to end, or has another queue, waits so long."""
CHUNK_S = 0.05
"""Items that should take so long together are taken at once."""
MOST, MOST_BYTES = 64, 4 * 1024 * 1024
QUICK_S, HOLD_S = 0.005, 0.02
"""Outcomes of items that took less than the first wait for others, at most the second; an answer of
a network does not wait."""
STUCK_S = 0.25
"""Items do not wait longer for one that was taken with them."""

_MARKS = (LIGHT_MARK, '"eta": null')
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, KombuError)


def run_delivered(
    ref: ItemRef, item: Item, spec: StepSpec, place: str, ledger: Any, services: Services
) -> Receipt:
    """Runs an item that came in a message; says so to its run if that cannot go on."""
    about = {"run": ref.run, "step": spec.name, "batch": ref.batch, "item": item.id}
    with log_context(**about), span("item", place, **about):
        receipt = run_item(ref, item, spec, ledger, heart.owner(services), services.tools)
    if receipt.halt:
        state = RunState.FAILED if receipt.ends_run else RunState.PAUSED
        services.ledger.halt(ref.run, state, receipt.halt)
    return receipt


def feed(app: BatchqApp, own: Delivery, item_s: float) -> None:
    """Runs what is next in a queue, for a while, after `own`, whose item took `item_s`.

    The time limit of `own` ends this process, so it has to be that of all others.
    """
    limits = json.dumps(list(own.timelimit or (None, None)))
    marks = (*_MARKS, f'"timelimit": {limits}')
    slot = _Slot(app, own)
    until = time.monotonic() + FEED_S - item_s
    try:
        while time.monotonic() < until and not is_leaving():
            most = max(1, min(MOST, int(CHUNK_S / max(item_s, 1e-4))))
            texts = slot.take(most, marks)
            if not texts:
                return
            slot.busy_s = 0.0
            slot.run(texts)
            item_s = slot.busy_s / len(texts)
    finally:
        slot.drop()


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that the worker gave to a slot, whose item has ended."""

    queue: str
    part: Part
    timelimit: Sequence[float | None] | None


@dataclass(slots=True)
class _Taken:
    """One message, read."""

    text: bytes
    ref: ItemRef
    item: Item
    spec: StepSpec
    place: str
    part: Part
    has_budget: bool = False


class _Slot:
    """What a slot has taken, and what of it is done; the watchdog lets go of what waits."""

    def __init__(self, app: BatchqApp, own: Delivery) -> None:
        self.app = app
        self.services = app.services
        self.queue = own.queue
        self.hand = f"{heart.owner(app.services)}/{own.queue}/{threading.get_ident()}"
        self.bulk = app.services.bulk
        self.began_at = 0.0  # when the item that runs now began
        self.busy_s = 0.0  # what items took by themselves
        self._accept = prepare_accept_content(app.conf.accept_content)
        self._lock = threading.RLock()
        self._rest: deque[_Taken] = deque()
        self._ended: list[tuple[ItemRef, Outcome]] = []
        self._ended_at = 0.0  # the first of these
        self._parts = [own.part]

    def take(self, most: int, marks: Sequence[str]) -> list[bytes]:
        """Takes the messages of some items, in place of those it has run."""
        take: Callable[..., list[bytes]] = self.bulk.take
        return take(self.queue, self.hand, most=most, most_bytes=MOST_BYTES, marks=marks)

    def drop(self) -> None:
        """Has nothing in hand any more."""
        self.bulk.drop(self.hand)

    def run(self, texts: Sequence[bytes]) -> None:
        """Runs the items of messages, as far as nothing is odd about them."""
        taken: dict[ItemRef, _Taken] = {}
        odd: list[bytes] = []
        for text in texts:
            one = self._read(text)
            if one is None or one.ref in taken:
                odd.append(text)
            else:
                taken[one.ref] = one
        claimed = self.bulk.claim(list(taken), heart.owner(self.services))
        for ref, one in taken.items():
            verdict = claimed.verdicts.get(ref)
            if verdict is None:
                odd.append(one.text)
            elif verdict is Claim.RUN:
                one.has_budget = ref.run in claimed.with_budget
                self._rest.append(one)
            else:
                self._parts.append(one.part.ended(verdict.value))
        if odd:
            self.bulk.give_back(self.queue, [as_ordinary(text) for text in odd])
        self.began_at = time.monotonic()
        with _watchdog.over(self):
            while (up := self._next()) is not None:
                ledger = _ChunkLedger(self, up)
                receipt = run_delivered(up.ref, up.item, up.spec, up.place, ledger, self.services)
                if receipt.again_s:  # none that is light should; the worker knows how to wait
                    self.bulk.give_back(self.queue, [as_ordinary(up.text)])
                    continue
                with self._lock:
                    self._parts.append(up.part.ended(receipt.claim.value))
        self.flush()

    def keep(self, ref: ItemRef, outcome: Outcome) -> None:
        """Keeps an outcome, now or within `HOLD_S`."""
        now = time.monotonic()
        self.busy_s += now - self.began_at
        with self._lock:
            if not self._ended:
                self._ended_at = now
            self._ended.append((ref, outcome))
            is_quick = now - self.began_at < QUICK_S and not outcome.usage.calls
            if is_quick and outcome.is_ok and now - self._ended_at < HOLD_S:
                return
            self.flush()

    def flush(self) -> None:
        """Keeps the outcomes that wait, then counts their tasks."""
        with self._lock:
            if self._ended:
                halted = self.bulk.commit(self._ended)
                self._ended.clear()
                if any(one.ref.run in halted for one in self._rest):
                    self._give_back()
            if self._parts:
                backend: Any = self.app.backend
                backend.count_parts(self._parts)
                self._parts.clear()

    def let_go(self) -> None:
        """Lets nothing wait for an item that takes long."""
        with self._lock:
            self._give_back()
            self.flush()

    def _give_back(self) -> None:
        if self._rest:
            rest = list(self._rest)
            self.bulk.give_back(self.queue, [one.text for one in rest], [one.ref for one in rest])
            self._rest.clear()

    def _next(self) -> _Taken | None:
        with self._lock:
            self.began_at = time.monotonic()
            return self._rest.popleft() if self._rest else None

    def _read(self, text: bytes) -> _Taken | None:
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
            spec = self.services.ledger.spec(ref.run, ref.step)
            part = Part(headers["id"], headers["group"], headers["group_index"], embed["chord"])
        except _UNREADABLE as error:
            log.debug("a message is left to the worker: %s", error)
            return None
        return _Taken(text, ref, item, spec, place_of(headers), part) if spec else None


@dataclass(frozen=True, slots=True)
class _ChunkLedger:
    """The ledger of an item that was claimed with others; implements ports.WorkerLedger."""

    slot: _Slot
    one: _Taken

    def claim(self, ref: ItemRef, owner: str) -> ClaimResult:  # noqa: ARG002 (done already)
        """See ports.WorkerLedger."""
        return ClaimResult(Claim.RUN, {}, 1, self.one.has_budget)

    def commit(self, ref: ItemRef, outcome: Outcome) -> bool:
        """See ports.WorkerLedger; here it is not known at once whether it is the first."""
        self.slot.keep(ref, outcome)
        return True

    def checkpoint(self, ref: ItemRef, stage: str, value: Json) -> None:
        """See ports.WorkerLedger."""
        self.slot.services.ledger.checkpoint(ref, stage, value)

    def release(self, ref: ItemRef, *, starts: int = 0, until: float = 0.0) -> None:
        """See ports.WorkerLedger."""
        self.slot.services.ledger.release(ref, starts=starts, until=until)

    def is_running(self, run: str) -> bool:
        """See ports.WorkerLedger."""
        return self.slot.services.ledger.is_running(run)


class _Watchdog:
    """Looks after slots whose items wait for each other, by one thread of a process."""

    def __init__(self) -> None:
        self._slots: set[_Slot] = set()
        self._awake = threading.Event()
        self._pid = 0

    @contextmanager
    def over(self, slot: _Slot) -> Iterator[None]:
        """Looks after a slot within the block."""
        if self._pid != os.getpid():  # a fork has none of its parent's threads
            self._pid, self._slots, self._awake = os.getpid(), set(), threading.Event()
            threading.Thread(target=self._look, name="batchq-watchdog", daemon=True).start()
        self._slots.add(slot)
        self._awake.set()
        try:
            yield
        finally:
            self._slots.discard(slot)

    def _look(self) -> None:
        while self._awake.wait():
            time.sleep(STUCK_S / 2)
            slots = list(self._slots)
            if not slots:
                self._awake.clear()
                if not self._slots:  # else one came in this moment
                    continue
            for slot in slots:
                if time.monotonic() - slot.began_at > STUCK_S:
                    try:
                        slot.let_go()
                    except QueueError as error:
                        log.warning("items wait behind another one: %s", error)


_watchdog = _Watchdog()
