"""When a manifest is submitted by itself: cron expressions, in the manifest and in time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import BeforeValidator, Field, model_validator

from batchq.manifest.scalars import Part, shown, wrong

_A_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def _cron(value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(f"expected a cron expression such as '0 2 * * *', found {shown(value)}")
    try:
        CronSim(value, _A_DAY)
    except CronSimError as error:
        raise wrong(
            f"{value!r} is no cron expression ({str(error).lower()}): five fields are needed, "
            "minute, hour, day of month, month and day of week, such as '0 2 * * *'"
        ) from error
    return value


def _timezone(value: Any) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise wrong(f"no time zone is named {value!r}; one is Europe/Berlin, or UTC") from error
    return str(value)


class Schedule(Part):
    """When a manifest is submitted by itself, once it was applied by `batchq schedule apply`."""

    cron: Annotated[str, BeforeValidator(_cron)] = Field(
        description="minute, hour, day of month, month, day of week: '0 2 * * *'."
    )
    timezone: Annotated[str, BeforeValidator(_timezone)] = Field(
        "UTC", description="What the hours are of, such as Europe/Berlin."
    )
    overlap: Literal["skip", "allow"] = Field(
        "skip", description="What to do while the run before goes on: skip this time, or allow two."
    )

    @model_validator(mode="after")
    def _comes(self) -> Schedule:
        if next(times(self.cron, self.timezone, _A_DAY.timestamp()), None) is None:
            raise wrong(f"cron {self.cron!r} names a day that never comes")
        return self


def times(cron: str, timezone: str, after: float) -> Iterator[float]:
    """The moments that an expression names, in seconds since the epoch.

    An hour that a change of the clocks leaves out or repeats is taken once, as Debian's cron does.
    """
    for moment in CronSim(cron, datetime.fromtimestamp(after, ZoneInfo(timezone))):
        yield moment.timestamp()
