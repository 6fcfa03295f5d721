"""`batchq limits` on a real Redis: what it shows, what it changes, what it refuses."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable

import pytest

from batchq.__main__ import main
from batchq.endpoint import Limits, ProviderSpec, RateLimit
from batchq.limiter import RedisLimiter
from batchq.limiter.keys import provider_key
from batchq.ports import Reservation

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(redis_url, tmp_path, monkeypatch, capsys) -> Ask:
    """`ask("NAME", "--json")` runs the command: exit code, stdout, stderr."""
    monkeypatch.setenv("BATCHQ_BROKER_URL", redis_url)
    monkeypatch.setenv("BATCHQ_HOME", str(tmp_path))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["batchq", "limits", *words])
        code = main()
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def provider() -> ProviderSpec:
    limits = Limits((RateLimit("rpm", "requests", 60, 60),), 5)
    return ProviderSpec(f"paid{uuid.uuid4().hex[:6]}", "openai", "http://x", "m", limits=limits)


def test_it_shows_use_and_waiters_for_people_and_programs(ask, provider, redis_client) -> None:
    limiter = RedisLimiter(redis_client)
    for number in range(9):
        limiter.reserve(Reservation(provider, f"run1/{number}", 100, 60, patience_s=3))

    code, shown, _ = ask(provider.name)
    _, told, _ = ask(provider.name, "--json")

    [use] = json.loads(told)
    assert code == 0
    assert provider.name in shown
    assert "of run1 wait in line, others come back later" in shown
    assert (use["granted"], use["in_flight"], use["blocked_by"]) == (1, 1, "rpm")
    assert use["away"] == ["run1"]
    assert 1 <= use["waiting"]["run1"] <= 4
    assert {one["name"]: one["amount"] for one in use["limits"]} == {"rpm": 60, "concurrency": 5}


def test_a_limit_that_is_set_holds_at_once_and_until_it_is_unset(
    ask, provider, redis_client
) -> None:
    limiter = RedisLimiter(redis_client)
    limiter.reserve(Reservation(provider, "run1/0", 100, 60))
    slow = limiter.reserve(Reservation(provider, "run1/1", 100, 60))

    code, shown, _ = ask(provider.name, "--set", "rpm=6000", "--set", "concurrency=2")
    fast = limiter.reserve(Reservation(provider, "run1/2", 100, 60))
    second = limiter.reserve(Reservation(provider, "run1/3", 100, 60))
    ask(provider_key(provider), "--unset", "rpm", "--unset", "concurrency")
    _, told, _ = ask(provider.name, "--json")

    assert code == 0
    assert "set by hand" in shown
    assert slow.wait_s > 0.5
    assert fast.wait_s < 0.05
    assert second.blocked_by in ("concurrency", "rpm")
    assert {one["name"]: one["source"] for one in json.loads(told)[0]["limits"]} == {
        "rpm": "manifest",
        "concurrency": "manifest",
    }


@pytest.mark.parametrize(
    "change",
    ["rpm=0", "rpm=-5", "rpm=nan", "rpm=inf", "rpm=1e12", "rpm=", "rpm", "rpm=many", "speed=3"],
)
def test_a_limit_that_makes_no_sense_is_refused_and_changes_nothing(
    ask, provider, redis_client, change
) -> None:
    RedisLimiter(redis_client).reserve(Reservation(provider, "run1/0", 100, 60))

    code, _, said = ask(provider.name, "--set", change)
    _, told, _ = ask(provider.name, "--json")

    assert code == 2
    assert "Traceback" not in said
    assert change.partition("=")[0] in said
    assert {one["source"] for one in json.loads(told)[0]["limits"]} == {"manifest"}


def test_an_unknown_provider_is_refused_with_the_nearest_name(ask, provider, redis_client) -> None:
    RedisLimiter(redis_client).reserve(Reservation(provider, "run1/0", 100, 60))

    code, _, said = ask(provider.name + "x", "--set", "rpm=5")

    assert code == 2
    assert f"did you mean {provider.name}" in said


def test_a_change_without_a_provider_is_refused(ask) -> None:
    code, _, said = ask("--set", "rpm=5")

    assert code == 2
    assert "name the provider" in said
