"""Chooses which items of a step go into its next upload, and pays for it out of the budget."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchq.engine.budget import used_up_text
from batchq.engine.collate import batch_count
from batchq.engine.spending import estimate_call
from batchq.engine.stages import Conversation, request_of
from batchq.engine.uploading import Bounds, Load, line_id, tag_of
from batchq.errors import ProviderError, StoreError, TaskError
from batchq.outcome import Usage
from batchq.plan import Item, StageSpec, StepPlan, StepSpec
from batchq.planning.pricing import upload_prices
from batchq.ports import ChatRequest, RunInfo
from batchq.progress import RunState
from batchq.ranges import ranges
from batchq.runs.kept import answers_in, has_cache
from batchq.store.uploads import Intent, KeptUpload, UploadStore
from batchq.uploads import UploadLimits, UploadLine

if TYPE_CHECKING:
    from batchq.services import Services
    from batchq.store import RunFolder

log = logging.getLogger(__name__)

MOST_RUNNING = 20
"""So many uploads of a step are at the provider at a time."""
TRIES = 6
"""An upload that a budget has no room for is tried at half its size so often."""


@dataclass(frozen=True, slots=True)
class Next:
    """The upload that is to be made next; without one, `note` says what keeps it back, if anything.

    An intent without lines is of items whose answers are kept.
    """

    intent: Intent | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Cargo:
    """What fits into an upload: items of the batches from `first` to `last`, see `Intent`."""

    first: int
    last: int
    cuts: bool
    load: Load


class Loader:
    """Loads the uploads of one step; `spec` is as workers have it, with its server's address."""

    def __init__(
        self,
        info: RunInfo,
        step: StepPlan,
        spec: StepSpec,
        services: Services,
        folder: RunFolder,
        store: UploadStore,
    ) -> None:
        self._run, self._has_budget = info.run, info.plan.budget is not None
        self._step, self._spec, self._folder, self._store = step, spec, folder, store
        self._services = services
        self._stage = _at_upload_prices(spec.stages[0])
        assert self._stage.provider is not None
        self._provider = self._stage.provider
        self._wire = services.upload_provider(self._provider.kind)

    def next(self, uploads: Sequence[KeptUpload], most: UploadLimits, now: float) -> Next:
        """Chooses the next upload, and holds in the budget what it may use."""
        round_ = self._store.round()
        running = [one for one in uploads if one.ended is None]
        if any(one.created is None or one.intent.round < round_ for one in running):
            return Next()  # what was begun comes first: its items may have their answers soon
        if len(running) >= MOST_RUNNING:
            return Next()
        number = uploads[-1].intent.number + 1 if uploads else 0
        tag, share = tag_of(self._run, self._spec.number, number), 1.0
        for _ in range(TRIES):
            bounds = self._bounds(most, running, share)
            cargo = self._pack(uploads, round_, tag, bounds, is_alone=not running)
            if cargo is None:
                return Next()
            load = cargo.load
            if not load.indexes and cargo.cuts and load.full_by != "budget":
                return Next(note=f"{self._provider.name} batch quota")
            need = load.need if load.indexes or not cargo.cuts else load.refused
            verdict = self._afford(tag, need, is_last=len(load.indexes) <= 1)
            if verdict == "granted" and (load.indexes or not cargo.cuts):
                lines = len(load.indexes)
                covers = (cargo.first, cargo.last, cargo.cuts)
                where = ranges(load.indexes)
                return Next(Intent(number, tag, round_, *covers, where, lines, need, now, now))
            if verdict == "wait" or not load.indexes:
                return Next(note="budget")
            share /= 2  # calls took more than was estimated, so the whole of it would not fit
        return Next(note="budget")

    def lines(self, intent: Intent) -> Iterator[UploadLine]:
        """The lines of an upload, batch by batch."""
        size = self._step.pacing.batch_size
        for batch in range(intent.first, intent.last + 1):
            for item in self._folder.batch(self._spec.number, batch, size):
                if intent.has(item.index) and (request := self._request(item)) is not None:
                    yield UploadLine(line_id(intent.tag, item.index), request)

    def hold(self, intent: Intent) -> None:
        """Holds in the budget what an upload may use, where Redis has forgotten it."""
        budgets, lease = self._services.budgets, _lease(intent.tag)
        if self._has_budget and not budgets.holds(self._run, lease):
            budgets.reserve(self._run, lease, "", intent.need)

    def settle(self, tag: str, used: Usage, *, is_due: bool = False) -> None:
        """Pays what an upload used in place of what it held; again, it changes nothing."""
        if self._has_budget:
            self._services.budgets.settle(self._run, _lease(tag), used, is_due=is_due)

    def _afford(self, tag: str, need: Usage, *, is_last: bool) -> str:
        """Holds what an upload may use; the run stands still if one call does not fit."""
        if not self._has_budget or not need.calls:
            return "granted"
        allowance = self._services.budgets.reserve(self._run, _lease(tag), "", need)
        if allowance.verdict == "used up" and is_last and allowance.use is not None:
            fails = allowance.use.budget.on_exceeded == "fail"
            state = RunState.FAILED if fails else RunState.PAUSED
            self._services.ledger.halt(self._run, state, used_up_text(allowance))
        return allowance.verdict

    def _bounds(self, most: UploadLimits, running: Sequence[KeptUpload], share: float) -> Bounds:
        limits = self._provider.limits
        lines = [most.lines, limits.upload_lines, self._store.most_lines()]
        sent = sum(one.intent.need.input_tokens for one in running)
        use = self._services.budgets.use(self._run) if self._has_budget else None
        nusd = tokens = None
        if use is not None and use.budget.nusd is not None:
            nusd = int((use.budget.nusd - use.spent_nusd - use.held_nusd) * share)
        if use is not None and use.budget.tokens is not None:
            tokens = int((use.budget.tokens - use.spent_tokens - use.held_tokens) * share)
        return Bounds(
            min(one for one in lines if one is not None),
            most.bytes,
            None if limits.upload_tokens is None else limits.upload_tokens - sent,
            nusd,
            tokens,
        )

    def _pack(
        self,
        uploads: Sequence[KeptUpload],
        round_: int,
        tag: str,
        bounds: Bounds,
        *,
        is_alone: bool,
    ) -> _Cargo | None:
        """What goes into the next upload of a round; None if all items are in one, or done."""
        number, size = self._spec.number, self._step.pacing.batch_size
        batches = batch_count(self._folder.item_count(number) or 0, size)
        covered = [one.intent for one in uploads if one.intent.round == round_ and one.covers]
        first = max((one.last + (not one.cuts) for one in covered), default=0)
        if first >= batches:
            return None
        too_large = ("bytes", "tokens") if is_alone else ("bytes",)
        collated, load = self._folder.collated_batches(number), Load(bounds)
        for batch in range(first, batches):
            if batch in collated:
                continue
            for item in self._left(batch, covered, uploads):
                sized = self._sized(tag, item)
                if sized is None or load.add(item.index, *sized):
                    continue
                if load.indexes or load.full_by not in too_large:
                    return _Cargo(first, batch, cuts=True, load=load)
        return _Cargo(first, batches - 1, cuts=False, load=load)

    def _left(
        self, batch: int, covered: Sequence[Intent], uploads: Sequence[KeptUpload]
    ) -> list[Item]:
        """The items of a batch that have no outcome, no answer, and no line in an upload."""
        number, size = self._spec.number, self._step.pacing.batch_size
        ended = {one.index for one in self._folder.parked(number, batch)}
        items = [
            item
            for item in self._folder.batch(number, batch, size)
            if item.index not in ended and not any(one.has(item.index) for one in covered)
        ]
        if items and any(one.ended is not None for one in uploads):
            answered = self._store.answers([item.index for item in items], uploads)
            items = [item for item in items if item.index not in answered]
        if not items or not has_cache(self._step):
            return items
        try:
            ask = answers_in(self._services.cache)
            kept = ask(self._step, [item.data for item in items])
        except StoreError as error:
            log.error("uploads go without the kept answers: %s", error)
            return items
        return [item for item, is_kept in zip(items, kept, strict=True) if not is_kept]

    def _sized(self, tag: str, item: Item) -> tuple[int, Usage] | None:
        """The bytes of an item's line and what it may use; None if it cannot be a line.

        A worker will say what is wrong with it.
        """
        request = self._request(item)
        if request is None:
            return None
        try:
            size = self._wire.size(UploadLine(line_id(tag, item.index), request))
        except ProviderError:
            return None
        return size, estimate_call(request, self._stage)

    def _request(self, item: Item) -> ChatRequest | None:
        try:
            talk = Conversation.begin(self._stage, item.data)
        except TaskError:
            return None
        return request_of(talk, self._spec.timeout_s)


def _at_upload_prices(stage: StageSpec) -> StageSpec:
    assert stage.provider is not None  # checks: only a prompt goes in uploads
    prices = upload_prices(stage.provider.prices)
    return replace(stage, provider=replace(stage.provider, prices=prices))


def _lease(tag: str) -> str:
    return f"upload/{tag}"
