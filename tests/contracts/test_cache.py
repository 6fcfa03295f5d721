"""What holds for the cache of answers in memory, SQLite, PostgreSQL and Redis (real servers)."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import create_engine, text

from batchq.errors import StoreError
from batchq.outcome import Usage
from batchq.ports import Cache, KeptAnswer
from batchq.services import build_services
from batchq.settings import Settings, redis_client_url
from batchq.store import MemoryCache, open_cache
from batchq.store.rediscache import INDEX, PREFIX, RedisCache
from batchq.store.sqlcache import SqlCache

ODD = 'Zähl "3" \0 \ud800 🎉\n'
ANSWER = KeptAnswer(ODD, "m-1", Usage(1, 10, 5), 1_790_000_000.25)
KEY = "a" * 64


@dataclass
class Place:
    """One place for a cache: how to open it, and how to write something there by hand."""

    open: Callable[[], Cache]
    write: Callable[[str, str], None]


def sql_place(url: str) -> Iterator[Place]:
    opened: list[SqlCache] = []

    def open_it() -> Cache:
        cache = open_cache(url)
        assert isinstance(cache, SqlCache)
        opened.append(cache)
        return cache

    def write(key: str, value: str) -> None:
        statement = text("INSERT INTO answers (key, value, stored_at) VALUES (:k, :v, 0)")
        with opened[0]._writer.begin() as connection:
            connection.execute(statement, {"k": key, "v": value})

    yield Place(open_it, write)
    for cache in opened:
        cache.close()


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis", "shared redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "memory":
        cache = MemoryCache()
        yield Place(lambda: cache, cache._texts.__setitem__)
    elif request.param == "sqlite":
        yield from sql_place(f"sqlite:///{tmp_path}/home/cache.sqlite")
    elif request.param == "postgres":
        address = str(request.getfixturevalue("postgres_url"))
        engine = create_engine(address.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        engine.dispose()
        yield from sql_place(address)
    else:
        url = request.getfixturevalue("redis_url")
        client = redis.Redis.from_url(redis_client_url(url), decode_responses=True)

        def open_it() -> Cache:
            return open_cache(url) if request.param == "redis" else RedisCache(
                client, keep_s=60, most=2000
            )  # fmt: skip

        yield Place(open_it, lambda key, value: client.set(PREFIX + key, value) and None)
        client.close()


def test_an_answer_reads_back_as_it_was_put_by_whoever_opens_the_cache(place: Place) -> None:
    one, other = place.open(), place.open()

    one.put(KEY, ANSWER)

    assert other.get(KEY) == ANSWER


def test_a_request_that_nobody_made_has_no_answer(place: Place) -> None:
    assert place.open().get(KEY) is None


def test_many_answers_are_read_at_once_and_what_is_not_there_is_left_out(place: Place) -> None:
    cache = place.open()
    keys = [f"{number:064d}" for number in range(1203)]  # more than one question takes
    for number in range(0, 1203, 2):
        cache.put(keys[number], replace(ANSWER, text=str(number)))
    place.write(keys[1], "what a later batchq wrote")

    found = cache.get_many(keys)

    assert {key: found[key].text for key in found} == {
        keys[number]: str(number) for number in range(0, 1203, 2)
    }
    assert cache.get_many([]) == {}


def test_a_later_answer_takes_the_place_of_an_earlier_one(place: Place) -> None:
    cache = place.open()
    later = replace(ANSWER, text="other", stored_at=ANSWER.stored_at + 1)

    cache.put(KEY, ANSWER)
    cache.put(KEY, later)

    assert cache.get(KEY) == later


def test_what_is_no_answer_of_this_format_is_none_and_can_be_replaced(place: Place) -> None:
    cache = place.open()
    cache.get(KEY)  # the tables are made when it is opened
    place.write(KEY, '{"v": 99, "text": "of a later batchq"}')

    assert cache.get(KEY) is None
    cache.put(KEY, ANSWER)
    assert cache.get(KEY) == ANSWER


def test_an_answer_of_five_megabytes_is_kept(place: Place) -> None:
    cache, large = place.open(), replace(ANSWER, text="ü" * 5_000_000)

    cache.put(KEY, large)

    assert cache.get(KEY) == large


def test_many_threads_put_and_get_at_once(place: Place) -> None:
    cache = place.open()

    def work(number: int) -> bool:
        mine = replace(ANSWER, text=str(number))
        cache.put(f"{number:064d}", mine)
        cache.put(KEY, ANSWER)
        return cache.get(f"{number:064d}") == mine

    with ThreadPoolExecutor(16) as pool:
        done = list(pool.map(work, range(64)))

    assert all(done)
    assert cache.get(KEY) == ANSWER


def test_many_open_it_at_once_when_it_is_not_there_yet(place: Place) -> None:
    with ThreadPoolExecutor(8) as pool:
        caches = list(pool.map(lambda _: place.open(), range(8)))

    caches[0].put(KEY, ANSWER)
    assert {cache.get(KEY) for cache in caches} == {ANSWER}


def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    cache = SqlCache(f"sqlite:///{path}")
    cache.put(KEY, ANSWER)

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}

    assert set(modes) == {"cache.sqlite", "cache.sqlite-wal", "cache.sqlite-shm"}
    assert set(modes.values()) == {0o600}
    cache.close()


def test_the_broker_keeps_the_newest_answers_for_a_while_and_no_more(
    redis_client: redis.Redis, redis_url: str
) -> None:
    client = redis.Redis.from_url(redis_client_url(redis_url), decode_responses=True)
    cache = RedisCache(client, keep_s=3600, most=3)

    for number in range(6):
        cache.put(str(number), replace(ANSWER, stored_at=ANSWER.stored_at + number))

    kept = [str(number) for number in range(6) if cache.get(str(number))]
    assert kept == ["3", "4", "5"]
    assert client.zrange(INDEX, 0, -1) == kept
    assert {0 < int(client.ttl(PREFIX + key)) <= 3600 for key in kept} == {True}  # type: ignore[arg-type]
    client.close()


def test_workers_of_a_broker_share_its_redis_where_no_cache_is_set(redis_url: str) -> None:
    one, other = (build_services(Settings(broker_url=redis_url)).tools.answers for _ in range(2))
    assert one
    assert other

    one.keep(KEY, "text", "m-1", Usage(1, 10, 5))

    assert other.find(KEY, None)


def test_workers_share_the_cache_that_is_set_before_the_redis_of_the_broker(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    settings = Settings(broker_url=redis_url, cache_url=f"sqlite:///{tmp_path}/cache.sqlite")
    one, other = (build_services(settings).tools.answers for _ in range(2))
    assert one
    assert other

    one.keep(KEY, "text", "m-1", Usage(1, 10, 5))

    assert other.find(KEY, None)
    assert redis_client.dbsize() == 0


UNREACHABLE = {
    "nothing listens": ("redis://127.0.0.1:1/0", "Check BATCHQ_CACHE_URL"),
    "no server": ("postgresql://nobody@127.0.0.1:1/x", "Check BATCHQ_CACHE_URL"),
    "not a folder": ("sqlite:////dev/null/cache.sqlite", "Set BATCHQ_CACHE_URL to another place"),
    "not a database": ("sqlite:////etc/passwd", "its answers would be paid again"),
    "other database": ("mysql://host/x", "mysql is not supported"),
}


@pytest.mark.parametrize(("url", "words"), UNREACHABLE.values(), ids=UNREACHABLE)
def test_a_cache_out_of_reach_is_an_error_that_says_what_to_do(url: str, words: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_cache(url).get(KEY)

    assert words in str(caught.value)
    assert "cache" in str(caught.value)


def test_a_cache_of_another_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/cache.sqlite"
    SqlCache(url).close()
    with sqlite3.connect(tmp_path / "cache.sqlite") as connection:
        connection.execute("UPDATE cache_about SET value = '99'")
    connection.close()

    with pytest.raises(StoreError) as caught:
        SqlCache(url)

    assert "it has schema 99, this batchq reads 1" in str(caught.value)


def test_a_catalog_and_a_cache_may_share_a_database(tmp_path: Path) -> None:
    from batchq.store import open_catalog

    url = f"sqlite:///{tmp_path}/both.sqlite"
    catalog: Any = open_catalog(url)
    cache = SqlCache(url)

    cache.put(KEY, ANSWER)

    assert catalog.runs("p") == []
    assert cache.get(KEY) == ANSWER
    catalog.close()
    cache.close()
