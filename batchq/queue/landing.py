"""Hands a step's batches what uploads brought for them, and holds back those that wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from batchq.plan import Item, StepPlan, encode
from batchq.store.uploads import KeptUpload, UploadStore, is_ready

if TYPE_CHECKING:
    from batchq.store import RunFolder

PATIENCE_S = 60.0
"""A run that ends early waits so long for its uploads to be cancelled; a resume finds them."""


class Landing:
    """The uploads of a step as they stand at one look; a step that goes online waits for none.

    It `is_shut` while the first items of a run go before the others: these go online.
    """

    def __init__(self, folder: RunFolder, step: StepPlan, *, is_shut: bool = False) -> None:
        self._number = step.spec.number
        self._store = UploadStore(folder, self._number)
        self._is_open = step.spec.mode != "online" and not is_shut
        self._has_any = step.spec.mode != "online"

    @property
    def is_awaited(self) -> bool:
        """Whether somebody has to look after uploads for this step."""
        return self._is_open

    def has(self, batch: int) -> bool:
        """Whether a batch can be sent: what it waits for has come, or it waits for nothing."""
        if not self._is_open:
            return True
        return is_ready(batch, self._uploads, self._round, goes_online=self._goes_online)

    def answers(self, items: Sequence[Item]) -> dict[int, str]:
        """What uploads brought for items, by index, as workers read it."""
        if not self._is_open or not items:
            return {}
        found = self._store.answers([item.index for item in items], self._uploads)
        return {index: encode(answer).decode() for index, answer in found.items()}

    def is_abroad(self, now: float) -> bool:
        """Whether uploads are at the provider that a run which ends should not leave there."""
        return self._has_any and any(
            one.ended is None and (one.cancelled_at is None or now < one.cancelled_at + PATIENCE_S)
            for one in self._uploads
        )

    def clear(self) -> None:
        """Removes the answers of a step that is done: its outcomes have them."""
        if self._has_any:
            self._store.forget_answers()

    @cached_property
    def _uploads(self) -> list[KeptUpload]:
        return self._store.all()

    @cached_property
    def _round(self) -> int:
        return self._store.round()

    @cached_property
    def _goes_online(self) -> bool:
        return self._store.online() is not None
