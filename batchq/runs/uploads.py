"""Looks after the uploads of all runs, in the order in which they are due."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from batchq.errors import BatchqError, ProviderError, QueueError
from batchq.host.logs import log_context
from batchq.ledger import keys
from batchq.ports import RunInfo
from batchq.progress import RunState
from batchq.runs.life import open_folder
from batchq.runs.uploading import Patience, Uploader
from batchq.store.uploads import UploadStore

if TYPE_CHECKING:
    from batchq.services import Services

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 30.0
"""A look that somebody died in is taken up by another after this."""


def cancel_left(info: RunInfo, services: Services) -> None:
    """Cancels the uploads of a run that nobody works on; what they answered, a resume reads."""
    folder = open_folder(info.folder)
    for step in info.plan.steps:
        provider = step.spec.stages[0].provider
        if step.spec.mode == "online" or provider is None:
            continue
        store = UploadStore(folder, step.spec.number)
        for upload in store.all():
            if upload.created is None or upload.ended is not None:
                continue
            store.note_cancel(upload.intent.number, time.time())
            try:
                services.upload_provider(provider.kind).cancel(provider, upload.created.id)
            except ProviderError as error:
                log.warning("upload %s could not be cancelled: %s", upload.created.id, error)


class Uploads:
    """Looks at uploads in one coordinator process; `clock` gives seconds since the epoch."""

    def __init__(
        self, services: Services, clock: Callable[[], float] = lambda: time.time()
    ) -> None:
        self.services = services
        self.clock = clock
        self.patience = Patience()

    def look_at_due(self, now: float) -> bool:
        """Looks at the runs whose uploads are due; says whether there were any."""
        due = self.services.uploads.take_due(now, again_s=LOOK_AGAIN_S)
        for run in due:
            with log_context(run=run):
                self._look_at(run)
        return bool(due)

    def _look_at(self, run: str) -> None:
        ledger, uploads = self.services.ledger, self.services.uploads
        with ledger.lock(run, keys.uploading) as is_mine:
            if not is_mine:
                return  # it comes again
            try:
                wait_s = self._look(run)
            except QueueError:
                raise
            except BatchqError as error:
                log.warning("the run is paused: %s", error)
                ledger.set_state(run, RunState.PAUSED, str(error))
                wait_s = None
        if wait_s is None:
            uploads.leave(run)
        else:
            uploads.look_again(run, self.clock() + wait_s)

    def _look(self, run: str) -> float | None:
        info = self.services.info(run)
        if info is None:
            return None
        folder = open_folder(info.folder)
        done = folder.done_steps()
        waits = [
            Uploader(info, step, self.services, folder, self.patience, self.clock).look()
            for step in info.plan.steps
            if step.spec.mode != "online"
            and step.spec.number not in done
            and folder.item_count(step.spec.number) is not None
        ]
        return min((wait for wait in waits if wait is not None), default=None)
