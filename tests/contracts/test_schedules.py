"""Manifests that are submitted by themselves, on a real Redis; the submit is a script here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from batchq.ledger import keys
from batchq.ledger.schedules import Entry
from batchq.runs.scheduling import LATE_S, submit_due
from batchq.services import Services, build_services
from batchq.settings import Settings

NOON = 1_768_910_400.0  # 2026-01-20 12:00 UTC
HOUR = 3600.0

SUBMIT = """
import json, sys
print(json.dumps({"run": "r1", "pipeline": "p", "version": "v3"}))
open("called.txt", "a").write(" ".join(sys.argv[1:]) + "\\n")
"""


@pytest.fixture
def services(redis_url: str) -> Services:
    return build_services(Settings(broker_url=redis_url))


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """Submitted each hour; its folder has a `batchq` of its own, which notes how it is called."""
    (tmp_path / "batchq").mkdir()
    (tmp_path / "batchq/__init__.py").touch()
    (tmp_path / "batchq/__main__.py").write_text(SUBMIT)
    return Entry("p", "m.yaml", str(tmp_path), "0 * * * *", "UTC", "skip", ["-p", "n=1"])


def calls(entry: Entry) -> list[str]:
    file = Path(entry.folder, "called.txt")
    return file.read_text().splitlines() if file.exists() else []


def last(services: Services) -> Mapping[str, Any]:
    (due,) = services.schedules.all()
    return due.last


def test_what_is_due_is_submitted_and_comes_again(services, entry) -> None:
    assert services.schedules.put(entry, NOON)

    submit_due(services, NOON - 1)
    before = calls(entry)
    submit_due(services, NOON + 2)
    submit_due(services, NOON + 3)

    assert before == []
    assert calls(entry) == ["submit m.yaml --detach --json -p n=1"]
    (due,) = services.schedules.all()
    assert due.at == NOON + HOUR
    assert (due.last["run"], due.last["name"], due.last["at"]) == ("r1", "p@v3", NOON)


def test_of_two_that_see_the_same_time_one_takes_it(services, redis_url, entry) -> None:
    services.schedules.put(entry, NOON)
    other = build_services(Settings(broker_url=redis_url))
    (seen,), (also_seen,) = services.schedules.all(), other.schedules.all()

    taken = [one.take(seen, NOON + HOUR) for one in (services.schedules, other.schedules)]

    assert seen == also_seen
    assert taken == [True, False]


def test_times_that_nobody_was_there_for_are_told_and_not_made_up_for(services, entry) -> None:
    services.schedules.put(entry, NOON)

    submit_due(services, NOON + 2 * HOUR + LATE_S + 1)

    assert calls(entry) == []
    assert last(services)["missed"] == 2
    assert last(services)["skipped"] == "no coordinator was there"

    submit_due(services, NOON + 5 * HOUR + 10)

    assert len(calls(entry)) == 1
    assert last(services)["missed"] == 2  # those of 15 and 16 h


@pytest.mark.parametrize(
    ("overlap", "state", "number"),
    [
        ("skip", "running", 1),
        ("skip", "paused", 1),
        ("skip", "completed", 2),
        ("allow", "running", 2),
    ],
)
def test_a_run_that_goes_on_holds_back_the_next(
    services, redis_client: redis.Redis, entry, overlap, state, number
) -> None:
    services.schedules.put(replace(entry, overlap=overlap), NOON)
    submit_due(services, NOON)
    redis_client.hset(keys.run("r1"), "state", state)

    submit_due(services, NOON + HOUR)

    assert len(calls(entry)) == number
    assert last(services)["skipped"] == ("p@v3 was " + state if number == 1 else "")
    assert last(services)["run"] == "r1"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("import sys; sys.exit('error: m.yaml: no such file')", "no such file"),
        ("exit(4)", "exit 4"),
    ],
)
def test_a_submit_that_fails_is_told_and_the_next_time_comes(services, entry, script, told) -> None:
    Path(entry.folder, "batchq/__main__.py").write_text(script)
    services.schedules.put(entry, NOON)

    submit_due(services, NOON)

    assert told in last(services)["error"]
    assert services.schedules.all()[0].at == NOON + HOUR


def test_a_folder_that_is_gone_is_told(services, entry) -> None:
    services.schedules.put(replace(entry, folder="/no/such/folder"), NOON)

    submit_due(services, NOON)

    assert "/no/such/folder" in last(services)["error"]


def test_an_entry_that_is_removed_is_gone_with_what_is_known_of_it(services, entry) -> None:
    services.schedules.put(entry, NOON)
    assert not services.schedules.put(entry, NOON)
    services.schedules.tell("p", {"at": 1.0})

    assert services.schedules.remove("p")

    assert not services.schedules.remove("p")
    assert services.schedules.all() == []
    services.schedules.put(entry, NOON)
    assert last(services) == {}
