"""A look at a batch that somebody else settles in the same moment runs nothing again."""

from __future__ import annotations

import time
from typing import Any

import pytest

from batchq.engine.reconcile import MAX_DISPATCHES
from batchq.queue.advance import advance
from batchq.queue.app import make_app


@pytest.mark.parametrize("dispatches", [1, MAX_DISPATCHES])
@pytest.mark.parametrize("by_message", [True, False])
def test_a_batch_that_is_settled_while_another_looks_at_it_is_not_sent_again(
    cluster: Any, redis_client: Any, monkeypatch: Any, dispatches: int, by_message: bool
) -> None:
    info = cluster.submit("""
        name: late
        steps:
          - {name: note, input: {generate: 6}, task: "cluster_tasks:note", batch_size: 3,
             concurrent_batches: 1}
        """)
    app = make_app(cluster.services.settings)
    ledger = app.services.ledger
    advance(info.run, app)
    opened = ledger.open_batches(info.run)[1, 0]
    ledger.reopen_batch(info.run, 1, 0, opened, dispatches=dispatches)
    redis_client.delete("batchq.cpu")
    read = ledger.outcomes

    def late(run: str, step: int, batch: int) -> Any:
        ledger.close_batch(run, step, batch)  # as who has just written its record does
        return read(run, step, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "outcomes", late)
        if by_message:
            advance(info.run, app, collate=(1, 0))
        else:
            now = time.time()
            patch.setattr("batchq.queue.advance.time.time", lambda: now + 60)
            advance(info.run, app)
    app.close()

    assert (1, 0) not in ledger.open_batches(info.run)
    assert not redis_client.exists(f"batchq:{{{info.run}}}:out:1:0")
    assert cluster.services.catalog.items(info.run) == []
