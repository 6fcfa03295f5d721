"""What the first items of a run came to, and what was decided, in its folder."""

from __future__ import annotations

from pydantic import ValidationError

from batchq.errors import StoreError
from batchq.plan import decode, encode
from batchq.progress import CanaryReport
from batchq.store.folder import RunFolder

_PATH = "state/canary.json"


def read_canary(folder: RunFolder) -> CanaryReport | None:
    """The report on the first items; None while they are not done, or where there is no canary."""
    if not folder.files.exists(_PATH):
        return None
    try:
        return decode(CanaryReport, folder.files.read(_PATH))
    except ValidationError as error:
        raise StoreError(
            f"{folder.files.full(_PATH)}: broken. What to do: remove it, and approve the run again"
        ) from error


def write_canary(folder: RunFolder, report: CanaryReport) -> None:
    """Keeps the report in place of an older one."""
    folder.files.write(_PATH, encode(report), durable=True)
