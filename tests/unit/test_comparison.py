from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchq.cli.comparison import MAX_TEXT, excerpts, shorten, value_text
from batchq.runs.compare import ABSENT, FieldChange
from batchq.text.wordiff import difference

WORDS = st.lists(st.sampled_from(["one", "two", " ", "\n", "é", "<b>", "."]), max_size=12)


def test_short_values_are_shown_whole_and_what_is_not_there_is_not_null():
    assert excerpts(FieldChange("a", ABSENT, None)) == ("(none)", "null")
    assert excerpts(FieldChange("a", "1", 1)) == ('"1"', "1")


def test_long_values_are_cut_around_their_first_difference():
    start = "word " * 100

    old, new = excerpts(FieldChange("a", f"{start}left{start}", f"{start}right{start}"))

    assert "left" in old
    assert "right" in new
    assert old.startswith("…")
    assert old.endswith("…")


@given(st.text(max_size=400), st.text(max_size=400))
def test_two_values_that_differ_never_look_the_same(old, new):
    shown = excerpts(FieldChange("a", old, new))

    assert (shown[0] == shown[1]) == (old == new)
    assert max(map(len, shown)) <= MAX_TEXT + 2


def test_a_text_of_several_lines_is_shown_in_one():
    assert shorten("one\n  two\tthree") == "one two three"


@given(WORDS, WORDS)
def test_the_marked_words_are_the_difference_and_nothing_is_lost(old, new):
    before, after = difference("".join(old), "".join(new))

    assert "".join(piece.text for piece in before) == "".join(old)
    assert "".join(piece.text for piece in after) == "".join(new)
    kept = ["".join(p.text for p in side if not p.is_marked) for side in (before, after)]
    assert kept[0] == kept[1]


def test_values_are_written_as_json_with_letters_as_they_are():
    assert value_text({"é": [True, None]}) == '{"é": [true, null]}'
