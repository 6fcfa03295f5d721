from __future__ import annotations

from dataclasses import replace

import pytest

from batchq.monitoring.bound import ProviderLoad, bound_by

FREE = ProviderLoad("p", 0, [("rpm", 100, 600)])
FULL = ProviderLoad("p", 9, [("rpm", 590, 600), ("tpm", 100, 9000), ("concurrency", 3, 25)])

BUSY = ProviderLoad("p", 0, [("concurrency", 24, 25)])


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"loads": [FULL], "budget": "budget"}, "budget"),
        ({"loads": [FREE, ProviderLoad("q", 3, [], breaker="open")]}, "q: does not answer"),
        ({"loads": [ProviderLoad("q", 3, [], paused_s=4.0)]}, "q: paused by the provider"),
        ({"loads": [FULL]}, "p rpm"),
        ({"loads": [replace(FULL, blocked_by="tpm")]}, "p tpm"),
        ({"loads": [replace(FULL, blocked_by="turn")]}, "p: shared with other runs"),
        ({"loads": [replace(FULL, waiting=0, blocked_by="tpm")]}, "latency"),
        ({"loads": [FREE], "in_flight": 25, "queued": 100}, "workers"),
        ({"loads": [BUSY], "in_flight": 25, "queued": 100}, "p concurrency"),
        ({"loads": [FREE], "in_flight": 0, "has_more": True}, "pacing"),
        ({"loads": [FREE], "in_flight": 3}, "latency"),
        ({"loads": [FREE], "in_flight": 0}, ""),
    ],
)
def test_what_bounds_a_run_is_named(known, words) -> None:
    facts = {"loads": [], "in_flight": 10, "slots": 25, "queued": 0} | known

    assert bound_by(facts.pop("loads"), **facts) == words
