from __future__ import annotations

import pytest

from batchq.errors import UsageError
from batchq.labels import KNOWN_LABELS, check_label, require_changeable
from batchq.ports import RunRecord, RunState


def record(status: str, state: RunState) -> RunRecord:
    return RunRecord("r", "studio", "v1", state, status, "", "initial", "", "", "")


@pytest.mark.parametrize(
    "word", [*KNOWN_LABELS, "rc2", "beta-eu", "shipped", "Approved_by_Ana", "x"]
)
def test_known_labels_and_own_words_may_be_used(word):
    assert check_label(word) == word


@pytest.mark.parametrize(
    ("word", "near"), [("fnal", "final"), ("Final", "final"), ("deprecate", "deprecated")]
)
def test_a_known_label_that_is_misspelt_is_refused_with_the_right_one(word, near):
    with pytest.raises(UsageError, match=f"did you mean {near}"):
        check_label(word)


@pytest.mark.parametrize("word", ["", "2nd", "a b", "a" * 33, "../x", "ü", "beta\n"])
def test_what_is_no_word_is_refused(word):
    with pytest.raises(UsageError, match="is no label"):
        check_label(word)


def test_a_complete_final_version_is_read_only_and_the_error_says_how_to_open_it():
    with pytest.raises(UsageError, match="batchq label studio v1 rc"):
        require_changeable(record("final", RunState.COMPLETED))


@pytest.mark.parametrize(
    ("status", "state"), [("final", RunState.PAUSED), ("rc", RunState.COMPLETED)]
)
def test_a_version_that_is_not_complete_or_not_final_can_be_changed(status, state):
    require_changeable(record(status, state))
