from __future__ import annotations

import pytest

from batchq.broker.redisclient import sentinel_options
from batchq.broker.sentinels import SentinelUrl, parse_sentinels

WHOLE = "sentinel://us%3Aer:p%40ss@one:26379,two,[::1]:7000/main/2?sentinel_password=s%2Bt"


def test_a_url_names_sentinels_and_what_to_ask_them_for() -> None:
    found = parse_sentinels(WHOLE)

    assert found == SentinelUrl(
        (("one", 26379), ("two", 26379), ("::1", 7000)),
        "main",
        2,
        "us:er",
        "p@ss",
        (("password", "s+t"),),
    )


def test_celery_gets_a_url_for_each_sentinel() -> None:
    found = parse_sentinels(WHOLE)

    assert found.celery_url() == (
        "sentinel://us%3Aer:p%40ss@one:26379/2;sentinel://us%3Aer:p%40ss@two:26379/2;"
        "sentinel://us%3Aer:p%40ss@[::1]:7000/2"
    )
    assert sentinel_options(found)["password"] == "s+t"


def test_without_a_login_none_is_written() -> None:
    assert parse_sentinels("sentinel://one/main").celery_url() == "sentinel://one:26379/0"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("sentinel://one,two", "it names no master"),
        ("sentinel:///main", "it names no host"),
        ("sentinel://one,,two/main", "it names no host"),
        ("sentinel://one:port/main", "its port is no number"),
        ("sentinel://one:70000/main", "its port is no number"),
        ("sentinel://one/main/first", "its database is no number"),
        ("sentinel://one/main?master=x", "an option that is not known: master"),
    ],
)
def test_a_url_that_makes_no_sense_says_what_is_wrong(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_sentinels(url)
