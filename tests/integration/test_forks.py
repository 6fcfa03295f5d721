"""Workers that are forks of their supervisor."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from batchq.embedded import forks
from batchq.embedded.forks import Forked, fork_for
from batchq.embedded.parts import Part, Rank

if not forks.WARM:
    pytest.skip("workers are no forks on this system", allow_module_level=True)


@pytest.fixture
def taken() -> Iterator[list[int]]:
    """The signals that this process took, as a supervisor notes those it gets."""
    found: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        found.append(number)

    before = signal.signal(signal.SIGTERM, note)
    yield found
    signal.signal(signal.SIGTERM, before)


def test_a_worker_that_is_told_to_end_in_the_moment_of_its_start_ends(monkeypatch, taken) -> None:
    def fork_and_hit(fork=os.fork) -> int:
        pid = fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return pid

    monkeypatch.setattr(os, "fork", fork_and_hit)

    try:
        child = fork_for(Part("worker", (), "worker.log", Rank.WORKER))
    except Forked:
        os._exit(0)  # the child: the signal was lost

    assert child.wait() == -signal.SIGTERM
    os.kill(os.getpid(), signal.SIGTERM)
    assert taken == [signal.SIGTERM]  # and its parent takes signals as before
