"""When manifests are submitted by themselves."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import pytest
from pydantic import ValidationError

from batchq.manifest.timetable import Schedule, times


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def first(cron: str, timezone: str, after: str, number: int) -> list[str]:
    found = islice(times(cron, timezone, at(after)), number)
    return [f"{datetime.fromtimestamp(one, UTC):%d %H:%M}" for one in found]


def test_times_come_after_a_moment_and_never_at_it() -> None:
    assert first("*/20 * * * *", "UTC", "2026-01-20 14:20", 3) == [
        "20 14:40",
        "20 15:00",
        "20 15:20",
    ]


def test_hours_are_those_of_the_time_zone() -> None:
    assert first("0 2 * * *", "Asia/Tokyo", "2026-01-20 00:00", 2) == ["20 17:00", "21 17:00"]


def test_an_hour_that_is_left_out_or_comes_twice_is_taken_once() -> None:
    spring = first("30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", 2)
    autumn = first("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", 2)

    assert spring == ["29 01:00", "30 00:30"]
    assert autumn == ["25 00:30", "26 01:30"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"cron": "* * *"}, "is no cron expression (wrong number of fields): five fields"),
        ({"cron": "61 * * * *"}, "is no cron expression (bad minute)"),
        ({"cron": "@daily"}, "is no cron expression"),
        ({"cron": ""}, "is no cron expression"),
        ({"cron": 5}, "expected a cron expression such as '0 2 * * *', found the number `5`"),
        ({"cron": "0 2 31 2 *"}, "is no cron expression"),
        ({"cron": "0 2 * * *", "timezone": "Mars/Base"}, "no time zone is named 'Mars/Base'"),
        ({"cron": "0 2 * * *", "timezone": "../etc"}, "no time zone is named '../etc'"),
        ({"cron": "0 2 * * *", "timezone": 3}, "no time zone is named 3"),
        ({"cron": "0 2 * * *", "overlap": "maybe"}, "Input should be 'skip' or 'allow'"),
    ],
)
def test_what_is_no_schedule_is_refused(given: dict, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Schedule.model_validate(given)

    assert told in str(caught.value)
