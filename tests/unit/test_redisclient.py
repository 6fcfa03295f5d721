from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from batchq.broker.redisclient import MOST_CONNECTIONS
from batchq.errors import QueueError
from batchq.ledger import RedisLedger, connect
from batchq.queue.app import make_app
from batchq.settings import Settings, redis_client_url

SLOTS = 2 * MOST_CONNECTIONS


def test_slots_that_find_all_connections_in_use_wait_for_one(redis_url: str) -> None:
    client = connect(redis_client_url(redis_url), patience_s=60)

    with client, ThreadPoolExecutor(SLOTS) as slots:
        blocked = [slots.submit(client.blpop, ["none"], 0.3) for _ in range(SLOTS)]

        assert [one.result() for one in blocked] == [None] * SLOTS
        assert int(client.info("clients")["connected_clients"]) <= MOST_CONNECTIONS + 5


def test_a_command_line_does_not_wait_long_for_a_connection(redis_url: str) -> None:
    client = connect(redis_client_url(redis_url), patience_s=0.1)
    ledger = RedisLedger(client)

    with client, ThreadPoolExecutor(MOST_CONNECTIONS) as slots:
        held = [client.connection_pool.get_connection() for _ in range(MOST_CONNECTIONS)]

        with pytest.raises(QueueError, match="No connection available"):
            slots.submit(ledger.runs).result()
        for one in held:
            client.connection_pool.release(one)


def test_slots_wait_for_the_connections_of_the_chord_counter_too(redis_url: str) -> None:
    client = make_app(Settings(broker_url=redis_url)).backend.client

    with client, ThreadPoolExecutor(SLOTS) as slots:
        blocked = [slots.submit(client.blpop, ["none"], 0.3) for _ in range(SLOTS)]

        assert [one.result() for one in blocked] == [None] * SLOTS
