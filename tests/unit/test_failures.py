from __future__ import annotations

import pytest

from batchq.providers.failures import redact, retry_after_s

TEN = "Sat, 21 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("then", "seconds"),
    [("Sat, 21 Nov 2026 10:00:09 GMT", 9), ("Sat, 21 Nov 2026 09:00:00 GMT", 0)],
)
def test_a_retry_after_date_is_measured_on_the_clock_of_the_server(then, seconds):
    assert retry_after_s({"date": TEN, "retry-after": then}) == seconds


def test_a_retry_after_date_without_the_servers_clock_is_measured_on_ours():
    assert retry_after_s({"retry-after": "Sat, 21 Nov 2015 10:00:00 GMT"}) == 0


def test_the_key_and_what_looks_like_one_are_taken_out():
    text = redact("bad key my-own-key; did you mean sk-proj-12345678?", "my-own-key")

    assert text == "bad key [key]; did you mean [key]?"
