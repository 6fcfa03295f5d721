from __future__ import annotations

import pytest

from batchq.errors import UsageError
from batchq.manifest.labels import KNOWN_LABELS, check_label


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
