"""An item whose outcome could not be kept is let go by its worker, which lives on."""

from __future__ import annotations

import pytest

from batchq.errors import QueueError
from batchq.outcome import Summary
from batchq.plan import Item, StageSpec, StepSpec
from batchq.ports import Claim, ItemRef
from batchq.queue import heart
from batchq.queue.app import make_app
from batchq.queue.message import encode_message
from batchq.settings import Settings

REF = ItemRef("r1", 1, 0, 0)
ABOUT = {"created_at": "1", "pipeline": "p", "version": "v0", "folder": "f", "steps": "a"}


@pytest.fixture
def app(redis_url, tmp_path):
    made = make_app(Settings(broker_url=redis_url, home=tmp_path, lease_ttl_s=1.5))
    made.loader.import_default_modules()
    ledger = made.services.ledger
    stage = StageSpec("", "command", command=("cat",))
    ledger.register("r1", ABOUT, [StepSpec(1, "a", (stage,))])
    ledger.start_step("r1", 1, total=1, batches=1, max_failures=None, done=Summary())
    ledger.open_batch("r1", 1, 0, dispatches=1)
    yield made
    heart.disown()
    made.close()


def test_an_item_whose_outcome_could_not_be_kept_is_let_go(app, monkeypatch, wait_for):
    ledger = app.services.ledger
    before = heart.owner(app.services)

    def cannot(*_):
        raise QueueError("Redis is away")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "commit", cannot)
        message = encode_message(REF, Item("0", 0, {}))
        done = app.tasks["batchq.run_item"].apply(args=(message,))

    assert isinstance(done.result, QueueError)
    assert ledger.leases("r1", 1, 0)[0].owner == before
    assert heart.owner(app.services) != before
    wait_for(lambda: before not in ledger.alive(), "the old name is dead")
    assert ledger.claim(REF, heart.owner(app.services)).claim is Claim.RUN
