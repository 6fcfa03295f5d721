from __future__ import annotations

import pytest

from batchq.errors import UsageError
from batchq.progress import RunState
from batchq.records import RunRecord
from batchq.runs.versions import require_changeable


def record(status: str, state: RunState) -> RunRecord:
    return RunRecord("r", "studio", "v1", state, status, "", "initial", "", "", "")


def test_a_complete_final_version_is_read_only_and_the_error_says_how_to_open_it():
    with pytest.raises(UsageError, match="batchq label studio v1 rc"):
        require_changeable(record("final", RunState.COMPLETED))


@pytest.mark.parametrize(
    ("status", "state"), [("final", RunState.PAUSED), ("rc", RunState.COMPLETED)]
)
def test_a_version_that_is_not_complete_or_not_final_can_be_changed(status, state):
    require_changeable(record(status, state))
