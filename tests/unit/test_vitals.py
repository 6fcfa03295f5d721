from __future__ import annotations

import os
import time
from pathlib import Path

from batchq.host.vitals import Vitals


def test_when_a_process_began_is_known_once_after_its_death(tmp_path: Path) -> None:
    vitals = Vitals(tmp_path)
    vitals.begin()

    began = vitals.take(os.getpid())

    assert began is not None
    assert abs(began - time.time()) < 60
    assert vitals.take(os.getpid()) is None


def test_who_has_ended_leaves_nothing(tmp_path: Path) -> None:
    vitals = Vitals(tmp_path)
    vitals.begin()

    vitals.end()

    assert [*tmp_path.rglob("*-*")] == [tmp_path / "at-work"]
    assert vitals.take(os.getpid()) is None
