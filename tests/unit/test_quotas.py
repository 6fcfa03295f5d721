from __future__ import annotations

import pytest

from batchq.endpoint import Limits, ProviderSpec, RateLimit
from batchq.limiter.pacing import Pace, paces
from batchq.limiter.signals import Signal, read_signal
from batchq.ports import Quota
from batchq.providers.quotas import read_quotas, refused_by


def pace(amount: float = 600) -> Pace:
    limits = Limits((RateLimit("rpm", "requests", amount, 60),))
    return paces(ProviderSpec("p", "openai", "http://x", "m", limits=limits), 10)[0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360.0), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("12.5", 12.5), ("0s", 0.0)],
)
def test_a_reset_in_the_way_of_openai_is_read(text, seconds) -> None:
    headers = {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": text,
    }

    assert read_quotas(headers) == (Quota("requests", 600, 599, pytest.approx(seconds)),)


def test_a_reset_of_anthropic_counts_from_the_clock_of_the_server() -> None:
    headers = {
        "date": "Sat, 21 Nov 2026 10:00:00 GMT",
        "anthropic-ratelimit-tokens-limit": "80000",
        "anthropic-ratelimit-tokens-remaining": "0",
        "anthropic-ratelimit-tokens-reset": "2026-11-21T10:00:30Z",
    }

    assert read_quotas(headers) == (Quota("tokens", 80_000, 0, 30.0),)


@pytest.mark.parametrize("text", ["", "-5", "nan", "inf", "many", "1e99", "0"])
def test_a_limit_that_is_nonsense_is_left_out(text) -> None:
    assert read_quotas({"x-ratelimit-limit-requests": text}) == ()


@pytest.mark.parametrize("text", ["-1s", "soon", "9999999d", "2026-99-99T00:00:00Z", "5 apples"])
def test_a_reset_that_is_nonsense_is_left_out(text) -> None:
    headers = {"x-ratelimit-limit-tokens": "100", "x-ratelimit-reset-tokens": text}

    assert read_quotas(headers) == (Quota("tokens", 100),)


def test_more_left_than_there_is_is_nonsense() -> None:
    headers = {"x-ratelimit-limit-tokens": "100", "x-ratelimit-remaining-tokens": "101"}

    assert read_quotas(headers) == ()


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ("Rate limit reached on tokens per min (TPM): Limit 10000", "tokens"),
        ("Rate limit reached on requests per min (RPM): Limit 60", "requests"),
        ("Number of concurrent connections has exceeded your limit", "concurrency"),
        ("slow down", ""),
        ("too many requests for tokens", ""),
    ],
)
def test_the_words_of_a_refusal_tell_the_limit(words, limit) -> None:
    assert refused_by(words, ()) == limit


def test_a_refusal_without_words_is_about_what_is_used_up() -> None:
    quotas = (Quota("requests", 60, 12, 1.0), Quota("tokens", 900, 0, 20.0))

    assert refused_by("slow down", quotas) == "tokens"


def test_a_limit_a_minute_is_taken_over() -> None:
    assert read_signal(pace(), [Quota("requests", 300, 290, 2.0)]) == Signal(300, 0)


def test_a_limit_a_day_is_none_a_minute() -> None:
    assert read_signal(pace(), [Quota("requests", 200, 199, 432.0)]).told == 0


def test_nothing_left_holds_everybody_for_one_call() -> None:
    assert read_signal(pace(), [Quota("requests", 600, 0, 60.0)]).hold_us == 100_000


def test_what_is_left_of_a_fixed_window_is_spread_over_the_rest_of_it() -> None:
    signal = read_signal(pace(), [Quota("requests", 600, 9, 50.0)])

    assert signal.hold_us == 0  # 591 used would take 59 s to fill: this may be a bucket

    fixed = read_signal(pace(), [Quota("requests", 600, 300, 55.0)])

    assert fixed.hold_us == pytest.approx(55e6 / 301)


def test_headers_of_nonsense_change_nothing() -> None:
    assert read_signal(pace(), [Quota("requests")]) == Signal()
