from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from batchq.simulator.chat import Response
from batchq.simulator.http import Request
from batchq.simulator.options import SimulatorOptions
from batchq.simulator.provider import SimulatedProvider

HEADERS = {"anthropic-version": "2023-06-01", "host": "here"}
LINES = 40


class Bench:
    """A provider whose clock stands still until it is moved."""

    def __init__(self, **options: Any) -> None:
        self.now = 100.0
        self.provider = SimulatedProvider(
            SimulatorOptions(**options), clock=lambda: self.now, wall=lambda: 1e9 + self.now
        )

    def ask(self, method: str, path: str = "", body: Any = None) -> Response:
        raw = b"" if body is None else json.dumps(body).encode()
        request = Request(method, f"/v1/messages/batches{path}", HEADERS, raw)
        response = self.provider.desk.handle(request)
        assert response is not None
        return response

    def create(self, count: int = LINES) -> str:
        requests = [
            {"custom_id": f"line-{number}", "params": _params(number)} for number in range(count)
        ]
        return str(self.ask("POST", "", {"requests": requests}).body["id"])

    def told(self) -> dict[str, Any]:
        return dict(self.provider.stats()["batches"][-1])

    def results(self, batch: str) -> dict[str, str]:
        content = self.ask("GET", f"/{batch}/results").content or b""
        lines = map(json.loads, content.splitlines())
        return {line["custom_id"]: line["result"]["type"] for line in lines}


def _params(number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"What is number {number} about?"}]
    return {"model": "m", "max_tokens": 500, "messages": messages}


def test_lines_are_answered_one_by_one_until_the_time_of_the_batch_is_over() -> None:
    bench = Bench(batch_s=10.0)
    batch = bench.create()

    counts = []
    for now in (100.0, 103.0, 107.0, 109.99):
        bench.now = now
        counts.append(bench.told()["answered"])
    running = bench.ask("GET", f"/{batch}").body["processing_status"]
    bench.now = 110.0
    ended = bench.ask("GET", f"/{batch}").body

    assert counts == sorted(counts)
    assert 0 < counts[1] < counts[2] < LINES
    assert (running, ended["processing_status"]) == ("in_progress", "ended")
    assert ended["ended_at"] == "2001-09-09T01:48:30Z"
    assert set(bench.results(batch).values()) == {"succeeded"}


def test_a_batch_with_a_line_that_is_never_answered_runs_until_its_window_ends() -> None:
    bench = Bench(batch_s=1.0, batch_window_s=50.0, batch_expire_rate=0.2)
    batch = bench.create()

    bench.now = 149.0
    waiting = bench.told()["waiting"]
    bench.now = 150.0

    assert 0 < waiting < LINES / 2
    assert list(bench.results(batch).values()).count("expired") == waiting


def test_what_takes_longer_than_the_window_expires() -> None:
    bench = Bench(batch_s=100.0, batch_window_s=50.0)
    batch = bench.create()

    bench.now = 150.0

    kinds = list(bench.results(batch).values())
    assert 0 < kinds.count("expired") < LINES
    assert kinds.count("expired") + kinds.count("succeeded") == LINES


def test_lines_under_way_are_answered_while_a_cancel_takes_its_time() -> None:
    bench = Bench(batch_s=10.0, batch_cancel_s=3.0)
    batch = bench.create()

    bench.now = 104.0
    bench.ask("POST", f"/{batch}/cancel")
    at_cancel = bench.told()["answered"]
    bench.now = 106.9
    before_end = bench.told()
    bench.now = 107.0
    after = bench.told()

    assert (before_end["state"], after["state"]) == ("cancelling", "ended")
    assert at_cancel < before_end["answered"] <= after["answered"] < LINES
    assert after["answered"] + after["cancelled"] == LINES


def test_a_line_that_expired_may_be_answered_in_the_next_batch() -> None:
    bench = Bench(batch_window_s=1.0, batch_expire_rate=0.5)
    first = bench.create()
    bench.now += 1
    second = bench.create()
    bench.now += 1

    one, two = bench.results(first), bench.results(second)

    assert any(one[name] == "expired" and two[name] == "succeeded" for name in one)


def test_the_quota_is_held_until_a_batch_has_ended() -> None:
    bench = Bench(batch_s=10.0, batch_queue_tokens=100)
    bench.create(10)

    refused = bench.ask("POST", "", {"requests": [{"custom_id": "a", "params": _params(11)}] * 1})
    many = {"requests": [{"custom_id": f"b{n}", "params": _params(n)} for n in range(10)]}
    full = bench.ask("POST", "", many)
    bench.now += 10
    taken = bench.ask("POST", "", many)

    assert (refused.status, full.status, taken.status) == (200, 429, 200)


@pytest.mark.parametrize(("rate", "status"), [("batch_lost_rate", None), ("batch_error_rate", 500)])
def test_a_creation_may_be_lost_or_fail(rate: str, status: int | None) -> None:
    bench = Bench(**{rate: 1.0})
    body = json.dumps({"requests": [{"custom_id": "a", "params": _params(1)}]}).encode()

    response = bench.provider.desk.handle(Request("POST", "/v1/messages/batches", HEADERS, body))

    assert (response.status if response else None) == status
    assert len(bench.provider.stats()["batches"]) == (1 if rate == "batch_lost_rate" else 0)


def test_a_reset_forgets_batches() -> None:
    bench = Bench()
    batch = bench.create()

    bench.provider.reset()

    assert bench.ask("GET", f"/{batch}").status == 404
    assert bench.provider.stats()["batches"] == []


@pytest.mark.parametrize(
    "change", [lambda bench: None, lambda bench: setattr(bench, "now", 999.0)], ids=["now", "later"]
)
def test_fates_depend_on_no_clock(change: Callable[[Bench], None]) -> None:
    one = Bench(batch_expire_rate=0.5, batch_window_s=5.0, server_error_rate=0.3)
    two = Bench(batch_expire_rate=0.5, batch_window_s=5.0, server_error_rate=0.3)
    change(two)

    batches = [(bench, bench.create()) for bench in (one, two)]
    for bench, _ in batches:
        bench.now += 5

    assert one.results(batches[0][1]) == two.results(batches[1][1])
