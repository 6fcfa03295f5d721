"""Sends items to their provider in uploads, and follows these; no worker's slot is held for it.

A coordinator looks at each run that has uploads when it is due. What it is about to do is in the
run folder before it is done, and what came of it after, so that any other coordinator can go on.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from batchq.engine.uploading import FIRST_LOOK_S, LAST_LOOK_S, look_after_s, retry_after_s
from batchq.errors import AuthFailed, ProviderError, ResultsCutOff, UploadQuotaUsedUp
from batchq.outcome import Usage
from batchq.plan import StepPlan
from batchq.planning.pricing import upload_prices
from batchq.planning.uploads import online_by
from batchq.ports import RunInfo
from batchq.progress import RunState, UploadsTold
from batchq.runs.delivering import Delivery, deliver
from batchq.runs.loading import Loader
from batchq.store.uploads import Begun, Created, Ended, Intent, KeptUpload, Online, UploadStore
from batchq.text.amounts import count, duration

if TYPE_CHECKING:
    from batchq.services import Services
    from batchq.store import RunFolder
    from batchq.uploads import Upload

log = logging.getLogger(__name__)

SETTLE_S = 10.0
"""An intent of somebody who died is looked for at the provider once a request of his has ended."""
MOST_READS = 5
"""Results that are cut off are read so often; then what is missing in them is missing."""


@dataclass(frozen=True, slots=True)
class QuotaWait:
    """How often in a row a provider had no room for an upload, and when it is asked again."""

    tries: int = 0
    until: float = 0.0


@dataclass
class Patience:
    """What one process waits for, by run and step; `tries` are failures in a row."""

    tries: Counter[tuple[str, int]] = field(default_factory=Counter)
    quotas: dict[tuple[str, int], QuotaWait] = field(default_factory=dict)


class Uploader:
    """One look at the uploads of one step of a run."""

    def __init__(
        self,
        info: RunInfo,
        step: StepPlan,
        services: Services,
        folder: RunFolder,
        patience: Patience,
        clock: Callable[[], float],
    ) -> None:
        self.step, self.folder, self.clock = step, folder, clock
        self.run, self.number, self.name = info.run, step.spec.number, step.spec.name
        self.ledger, self.told = services.ledger, services.uploads
        self.store = UploadStore(folder, self.number)
        spec = self.ledger.spec(self.run, self.number) or step.spec
        self.stage = spec.stages[0]
        assert self.stage.provider is not None  # checks: only prompts go in uploads
        self.provider = self.stage.provider
        self.wire = services.upload_provider(self.provider.kind)
        self.loader = Loader(info, step, spec, services, folder, self.store)
        self._key = (self.run, self.number)
        self._tries, self._quotas = patience.tries, patience.quotas
        self._note = ""
        self._seen: dict[int, Upload] = {}
        self._online_by = float("inf")

    def look(self) -> float | None:
        """Does what there is to do; returns after how many seconds to look again, None for never.

        A run that is paused leaves its uploads at the provider as they are.
        """
        state = self.ledger.state(self.run)
        if state is None or state is RunState.PAUSED:
            return None
        goes_on = state is RunState.RUNNING
        uploads = self.store.all()
        if goes_on:
            self._mind_deadline(uploads)
        is_wanted = goes_on and self.store.online() is None
        waits = [self._tend(one, is_wanted=is_wanted) for one in uploads]
        # What became of the uploads may have stopped the run, or sent it online.
        is_running = self.ledger.state(self.run) is RunState.RUNNING
        if is_wanted and is_running and self.store.online() is None:
            waits.append(self._make_next(self.store.all()))
        self._tell()
        wait_s = min((wait for wait in waits if wait is not None), default=None)
        return wait_s and min(wait_s, max(FIRST_LOOK_S, self._online_by - self.clock()))

    # One upload.

    def _tend(self, upload: KeptUpload, *, is_wanted: bool) -> float | None:
        """Does what is next for an upload; one that is not wanted any more is cancelled."""
        if upload.ended is not None:
            self.loader.settle(upload.intent.tag, upload.ended.usage)
            return None
        try:
            if upload.created is None:
                return self._make_again(upload, is_wanted=is_wanted)
            wait_s = self._follow(upload, upload.created, is_wanted=is_wanted)
        except ProviderError as error:
            return self._bear(error, upload)
        self._tries.pop(self._key, None)
        return wait_s

    def _make_again(self, upload: KeptUpload, *, is_wanted: bool) -> float:
        """Takes up an intent of which nobody knows whether it was carried out."""
        intent = upload.intent
        left_s = intent.tried_at + SETTLE_S - self.clock()
        if left_s > 0:
            if self._tries[self._key]:
                self._note = f"{self.provider.name}: does not answer"
            return left_s
        known = self.store.known_ids()
        found = self.wire.find(self.provider, intent.tag, intent.at, intent.lines, known)
        if found is not None:
            return self._created(intent, found, is_found=True)
        if not is_wanted:
            self._drop(intent)
            return 0.0
        intent = replace(intent, tried_at=self.clock())
        self.store.intend(intent)
        return self._make(intent)

    def _make(self, intent: Intent) -> float:
        self.loader.hold(intent)
        made = self.wire.create(self.provider, intent.tag, self.loader.lines(intent))
        return self._created(intent, made)

    def _created(self, intent: Intent, made: Upload, *, is_found: bool = False) -> float:
        now = self.clock()
        if not self.store.note_created(intent.number, Created(made.id, now, is_found)):
            kept = self.store.one(intent.number).created
            if kept is not None and kept.id != made.id:  # somebody took us for dead, and made it
                log.warning("upload %s was made twice: %s is cancelled", intent.tag, made.id)
                self.wire.cancel(self.provider, made.id)
            return 0.0
        self._tries.pop(self._key, None)
        self._log("upload created", upload=made.id, lines=intent.lines)
        return 0.0

    def _follow(self, upload: KeptUpload, created: Created, *, is_wanted: bool) -> float | None:
        intent, now = upload.intent, self.clock()
        self.loader.hold(intent)
        found = self.wire.poll(self.provider, created.id)
        if not is_wanted and found.state == "running":
            self.store.note_cancel(intent.number, now)
            upload = self.store.one(intent.number)
            found = self.wire.cancel(self.provider, created.id)
        self._seen[intent.number] = found
        if found.state == "rejected":
            return self._reject(upload, found.rejection or ProviderError("no reason was given"))
        if found.state == "ended":
            return self._read(upload, created)
        return look_after_s(now - (upload.cancelled_at or created.at))

    def _read(self, upload: KeptUpload, created: Created) -> float:
        """Takes the answers of an upload that has ended into the run folder."""
        answers = self.wire.answers(self.provider, created.id, self.stage.output_schema)
        prices = upload_prices(self.provider.prices)
        delivery = deliver(self.store, upload, answers, prices)
        if delivery.is_strange and created.is_found:
            self.store.forget_created(upload)  # it was somebody else's: ours is still to be made
            return 0.0
        if delivery.is_cut_off and self._tries[self._key] + 1 < MOST_READS:
            raise ResultsCutOff(f"the results of {created.id} are cut off")
        self._end(upload, delivery)
        return 0.0

    def _end(self, upload: KeptUpload, delivery: Delivery, reason: str = "") -> None:
        ended = delivery.ended(self.clock(), reason)
        self.store.note_ended(upload.intent.number, ended)
        self.loader.settle(upload.intent.tag, ended.usage, is_due=True)
        made = upload.created.id if upload.created else ""
        self._log("upload ended", {**delivery.counts}, upload=made, reason=reason)
        self._quotas.pop(self._key, None)
        if most := self.store.most_lines():
            self.store.note_most_lines(2 * most)
        self.ledger.look_at(self.run)

    # What goes wrong.

    def _bear(self, error: ProviderError, upload: KeptUpload) -> float | None:
        """Waits for what passes by itself; else ends the upload, or lets the run stand still."""
        log.warning("upload %s: %s", upload.intent.tag, error)
        if isinstance(error, UploadQuotaUsedUp):
            return self._wait_for_quota(upload, error)
        if isinstance(error, AuthFailed):
            reason = f"step {self.name}: {error} (the coordinator sends uploads: it needs the key)"
            self.ledger.halt(self.run, RunState.PAUSED, reason)
            return None
        if error.retryable:
            self._note = f"{self.provider.name}: {error}"
            wait_s = self._later()
            return wait_s if upload.created is None else min(wait_s, LAST_LOOK_S)
        if upload.created is None:
            return self._reject(upload, error)
        delivery = deliver(self.store, upload, (), None, why=f": {error}")
        self._end(upload, delivery, reason=str(error))
        return 0.0

    def _later(self) -> float:
        self._tries[self._key] += 1
        return retry_after_s(self._tries[self._key] - 1)

    def _wait_for_quota(self, upload: KeptUpload, error: ProviderError) -> float:
        """Waits until others have ended; where none of ours are, a smaller one may fit, too."""
        if upload.created is None:
            self._drop(upload.intent)
        else:
            self.store.note_ended(upload.intent.number, Ended("rejected", self.clock(), str(error)))
            self.loader.settle(upload.intent.tag, Usage())
        if not any(one.is_running for one in self.store.all()):
            self.store.note_most_lines(max(1, upload.intent.lines // 2))
        before = self._quotas.get(self._key, QuotaWait())
        wait_s = retry_after_s(before.tries)
        self._quotas[self._key] = QuotaWait(before.tries + 1, self.clock() + wait_s)
        return self._until_quota()

    def _until_quota(self) -> float:
        """How long no upload is made, as the provider had no room for the last one."""
        wait_s = self._quotas.get(self._key, QuotaWait()).until - self.clock()
        if wait_s > 0:
            self._note = f"{self.provider.name} batch quota"
        return max(0.0, wait_s)

    def _reject(self, upload: KeptUpload, error: ProviderError) -> float | None:
        """Takes note that a provider refused an upload whole: nothing of it was worked at."""
        if isinstance(error, UploadQuotaUsedUp):
            return self._wait_for_quota(upload, error)
        if upload.created is None:
            self._drop(upload.intent)
        else:
            ended = Ended("rejected", self.clock(), str(error))
            self.store.note_ended(upload.intent.number, ended)
            self.loader.settle(upload.intent.tag, Usage())
        text = f"step {self.name}: {self.provider.name} refused an upload: {error}"
        self._log("upload refused", level="warning", reason=str(error))
        if self.step.spec.mode == "auto":
            self._go_online(text)
            return 0.0
        hint = "mend it and resume the run, or submit it with `mode: online`"
        self.ledger.halt(self.run, RunState.PAUSED, f"{text}; {hint}")
        return None

    def _drop(self, intent: Intent) -> None:
        """Forgets an intent that was not carried out."""
        self.store.drop(intent.number)
        self.loader.settle(intent.tag, Usage())
        self.ledger.look_at(self.run)

    # The deadline.

    def _mind_deadline(self, uploads: Sequence[KeptUpload]) -> None:
        """Lets the rest go online once it would not be done in time otherwise."""
        terms, now = self.step.uploads, self.clock()
        if terms is None or self.store.online() is not None:
            return
        ends_at = terms.deadline_at if terms.deadline_s is None else now + terms.deadline_s
        begun = self.store.begun() or self.store.begin(Begun(now, ends_at))
        if begun.deadline_at is None:
            return
        rest = self._rest(uploads)
        rest_s = terms.online_s * rest / max(1, self.step.items)
        self._online_by = online_by(begun.at, begun.deadline_at, rest_s)
        if rest and now >= self._online_by:
            left = duration(max(0.0, begun.deadline_at - now))
            self._go_online(f"{count(rest, 'item')} left, and {left} until the deadline")

    def _rest(self, uploads: Sequence[KeptUpload]) -> int:
        """How many items of the step have neither an outcome nor an answer, at most."""
        counters = self.ledger.counters(self.run, self.number)
        done = counters.get("ok", 0) + counters.get("failed", 0)
        round_ = self.store.round()
        here = [one.ended for one in uploads if one.intent.round == round_]
        came = sum(ended.answered for ended in here if ended is not None)
        return max(0, counters.get("total", 0) - max(done, came))

    def _go_online(self, reason: str) -> None:
        if self.store.go_online(Online(self.clock(), reason)):
            self._log("goes online", reason=reason)
            self.ledger.look_at(self.run)

    # The next one.

    def _make_next(self, uploads: Sequence[KeptUpload]) -> float | None:
        """Makes the next upload, if there are items for one and the provider has room for it."""
        if wait_s := self._until_quota():
            return wait_s
        found = self.loader.next(uploads, self.wire.limits(self.provider), self.clock())
        self._note = self._note or found.note
        if found.intent is None:
            return retry_after_s(0) if found.note == "budget" else None
        self.store.intend(found.intent)
        if not found.intent.lines:  # all of them are answered already
            self.store.note_ended(found.intent.number, Ended("ended", self.clock()))
            self.ledger.look_at(self.run)
            return 0.0
        try:
            return self._make(found.intent)
        except ProviderError as error:
            return self._bear(error, KeptUpload(found.intent))

    def _tell(self) -> None:
        """Lets those who watch know how far the uploads are."""
        running = [one for one in self.store.all() if one.is_running]
        seen = [self._seen[one.intent.number] for one in running if one.intent.number in self._seen]
        told = UploadsTold(
            step=self.number,
            provider=self.provider.name,
            running=len(running),
            lines=sum(one.intent.lines for one in running),
            answered=sum(one.answered + one.failed for one in seen),
            note=self._note,
        )
        self.told.tell(self.run, told)

    def _log(
        self,
        event: str,
        counts: Mapping[str, int] = MappingProxyType({}),
        *,
        level: str = "info",
        **fields: str | int,
    ) -> None:
        said = {name: value for name, value in {**fields, **counts}.items() if value}
        self.folder.append_log(event, at=self.clock(), level=level, step=self.name, **said)
