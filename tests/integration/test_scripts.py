"""Scripts that many threads run at once come to what they do one by one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from redis.exceptions import ResponseError

from batchq.broker.scripts import Scripts
from batchq.ledger import connect
from batchq.settings import redis_client_url

ADD = "return redis.call('INCRBY', KEYS[1], ARGV[1])"
THREADS, EACH = 16, 40


@pytest.fixture
def scripts(redis_url) -> Scripts:
    return Scripts(connect(redis_client_url(redis_url), patience_s=2))


def test_each_runs_once_and_gets_its_own_answer(scripts, redis_client):
    add = scripts.register(ADD)

    def run(_: int) -> list[int]:
        return [scripts.run(add, ["sum"], [1]) for _ in range(EACH)]

    with ThreadPoolExecutor(THREADS) as pool:
        answers = [one for found in pool.map(run, range(THREADS)) for one in found]

    assert sorted(answers) == list(range(1, THREADS * EACH + 1))


def test_scripts_that_redis_has_forgotten_are_loaded_again(scripts, redis_client):
    add = scripts.register(ADD)

    def run(number: int) -> int:
        if number == 200:
            redis_client.script_flush()
        return int(scripts.run(add, [f"sum {number}"], [number]))

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(run, range(400))) == list(range(400))


def test_one_that_fails_takes_no_other_with_it(scripts, redis_client):
    add = scripts.register(ADD)
    redis_client.set("text", "no number")

    def run(number: int) -> str:
        try:
            return str(scripts.run(add, ["text" if number % 3 == 0 else f"n {number}"], [1]))
        except ResponseError as error:
            return "failed" if "not an integer" in str(error) else str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(run, range(300)))

    assert found == ["failed" if number % 3 == 0 else "1" for number in range(300)]
