"""A slot whose item has ended takes the next items itself, with as few round trips as may be.

What a worker does for one message costs several times what an item does that takes no time, and
as much as a call: it is fetched, decoded, handed to a slot, claimed, counted and told of one by
one. So a slot that has run a light item goes on with those that are next in its queue, for a
while; then the worker has its say again. Items that take no time it takes many at once, claims
them at once, and keeps their outcomes at once. Longer ones, such as calls, it takes one by one, and
shares round trips with the other slots of its process (`queue.crew`). Every item stays a message
of its own that any worker of the app can run.

Whatever is not plain sailing goes back into the queue as a message that only the worker takes: an
item that was started before, one that cannot be read, one whose run is not known, one that has to
wait for its provider. Where somebody looks at tasks' events, or a task was revoked, slots take
nothing (`queue.request`).
"""

from __future__ import annotations

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

from batchq.engine.runner import run_item
from batchq.engine.tracing import span
from batchq.errors import QueueError
from batchq.host.logs import log_context
from batchq.outcome import Outcome
from batchq.plan import Item, StepSpec
from batchq.ports import Claim, ItemRef
from batchq.progress import RunState
from batchq.queue import heart
from batchq.queue.backend import Part
from batchq.queue.crew import Crew, Ended, crew_of
from batchq.queue.leave import is_leaving
from batchq.queue.light import LIGHT_MARK, NO_ETA, as_later
from batchq.queue.taking import ClaimedLedger, Taken, Taker

if TYPE_CHECKING:
    from batchq.engine.runner import Receipt
    from batchq.queue.app import BatchqApp
    from batchq.services import Services

log = logging.getLogger(__name__)

FEED_S, FEED_ITEMS, MOST_FEED_S = 1.0, 10, 30.0
"""How long a slot goes on: a second, or as long as some items take, within bounds. So long a worker
waits that has another queue, or is told to tell of tasks."""
CHUNK_S = 0.05
"""Items that should take so long together are taken at once."""
MOST = 64
QUICK_S, HOLD_S = 0.005, 0.02
"""Outcomes of items that took less than the first wait for others, at most the second; an answer of
a network does not wait."""
STUCK_S = 0.25
"""Items do not wait longer for one that was taken with them."""

_MARKS = (LIGHT_MARK, NO_ETA)


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
    crew = crew_of(app, heart.owner(app.services), own.queue, marks)
    # A time limit goes on from its item to what follows it, and leaves little more than a second.
    has_limit = any(own.timelimit or ())
    lasts_s = FEED_S if has_limit else max(FEED_S, min(MOST_FEED_S, FEED_ITEMS * item_s))
    until = time.monotonic() + lasts_s - item_s
    with slot, crew:
        while time.monotonic() < until and not is_leaving():
            most = min(MOST, int(CHUNK_S / max(item_s, 1e-4)))
            took_s = slot.run_one(crew) if most <= 1 else slot.run_many(most, marks)
            if took_s is None:
                return
            item_s = took_s


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that the worker gave to a slot, whose item has ended."""

    queue: str
    part: Part
    timelimit: Sequence[float | None] | None


class _Slot:
    """What a slot has taken, and what of it is done; the watchdog lets go of what waits."""

    def __init__(self, app: BatchqApp, own: Delivery) -> None:
        self.app = app
        self.services = app.services
        self.bulk = app.services.bulk
        self.taker = Taker(app, own.queue, str(threading.get_ident()))
        self.began_at = 0.0  # when the item that runs now began
        self.busy_s = 0.0  # what items took by themselves
        self._lock = threading.RLock()
        self._rest: deque[Taken] = deque()
        self._ended: list[tuple[ItemRef, Outcome]] = []
        self._ended_at = 0.0  # the first of these
        self._parts = [own.part]

    def __enter__(self) -> _Slot:
        return self

    def __exit__(self, *_: object) -> None:
        self.taker.drop()

    def run_one(self, crew: Crew) -> float | None:
        """Runs the next item, taken with those of other slots; how long it took by itself.

        None without one, or for one that has to wait: the worker is to see what else there is.
        """
        if (one := crew.next()) is None:
            return None
        for part in self._parts:  # its own: nobody should wait for it
            crew.end(Ended(part))
        self._parts.clear()
        took_s = 0.0  # without the way to a Redis that may be far

        def keep(ref: ItemRef, outcome: Outcome) -> None:
            nonlocal took_s
            took_s = time.monotonic() - began
            crew.end(Ended(one.part.ended(Claim.RUN.value), (ref, outcome)))

        began = time.monotonic()
        receipt = self._run(one, keep)
        if receipt.again_s:
            return None
        if receipt.claim is not Claim.RUN:  # else its outcome has been kept
            crew.end(Ended(one.part.ended(receipt.claim.value)))
        return took_s

    def run_many(self, most: int, marks: Sequence[str]) -> float | None:
        """Runs the next items, taken at once; how long one took, None if there are none."""
        texts = self.taker.take(most, marks)
        if not texts:
            self.flush()
            return None
        ready, ended = self.taker.claim(texts)
        self.busy_s = 0.0
        self._rest.extend(ready)
        self._parts += ended
        self.began_at = time.monotonic()
        with _watchdog.over(self):
            while (up := self._next()) is not None:
                receipt = self._run(up, self.keep)
                if not receipt.again_s:
                    with self._lock:
                        self._parts.append(up.part.ended(receipt.claim.value))
        self.flush()
        return self.busy_s / len(texts)

    def _run(self, one: Taken, keep: Callable[[ItemRef, Outcome], None]) -> Receipt:
        """Runs a claimed item; one that has to wait for its provider goes back to the worker."""
        ledger = ClaimedLedger(self.services, one.has_budget, keep)
        receipt = run_delivered(one.ref, one.item, one.spec, one.place, ledger, self.services)
        if receipt.again_s:
            self.bulk.push(self.taker.queue, as_later(one.text, receipt.again_s))
        return receipt

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
            texts, refs = zip(*((one.text, one.ref) for one in self._rest), strict=True)
            self.bulk.give_back(self.taker.queue, texts, refs)
            self._rest.clear()

    def _next(self) -> Taken | None:
        with self._lock:
            self.began_at = time.monotonic()
            return self._rest.popleft() if self._rest else None


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
