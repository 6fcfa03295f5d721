from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from batchq.errors import ResultsCutOff, ServerFailed
from batchq.outcome import Usage
from batchq.ports import ChatReply
from batchq.providers.results import Results, match
from batchq.uploads import Upload, UploadAnswer

IDS = st.text("abc-_019", min_size=1, max_size=5)


def read(line: Mapping[str, Any]) -> ChatReply:
    if line.get("bad"):
        raise ServerFailed("bad")
    return ChatReply(str(line.get("text")), "m", Usage(1))


def answers_of(content: bytes, *, lines: int = 0, is_whole: bool = True) -> list[UploadAnswer]:
    upload = Upload("u1", "ended", lines, answered=lines)
    return list(match([Results(io.BytesIO(content), is_whole)], upload, "acme", read))


def test_the_last_line_needs_no_end() -> None:
    (answer,) = answers_of(b'{"custom_id": "a", "text": "x"}')

    assert answer == UploadAnswer("a", ChatReply("x", "m", Usage(1)))


def test_fewer_lines_than_the_provider_tells_are_cut_off() -> None:
    first, last = answers_of(b'{"custom_id": "a"}\n', lines=2)

    assert (first.id, last.id) == ("a", "")
    assert isinstance(last.error, ResultsCutOff)
    assert "u1 of provider acme end after 1 lines" in str(last.error)


def test_more_lines_than_the_provider_tells_are_no_fault() -> None:
    content = b'{"custom_id": "a"}\n{"custom_id": "b", "bad": true}\n'

    assert [answer.id for answer in answers_of(content, lines=1)] == ["a", "b"]


@given(st.binary(max_size=300), st.lists(IDS, max_size=5), st.booleans())
def test_no_file_stops_the_reading_nor_hides_a_good_line(
    noise: bytes, ids: list[str], is_whole: bool
) -> None:
    good = b"".join(json.dumps({"custom_id": name}).encode() + b"\n" for name in ids)

    answers = answers_of(noise + b"\n" + good, is_whole=is_whole)

    told = [answer.id for answer in answers if answer.id]
    assert told[len(told) - len(ids) :] == ids
    assert isinstance(answers[-1].error, ResultsCutOff) if not is_whole else True


@given(st.lists(IDS, min_size=1, max_size=5), st.data())
def test_a_file_that_is_cut_anywhere_is_told_or_whole(ids: list[str], data: st.DataObject) -> None:
    whole = b"".join(json.dumps({"custom_id": name}).encode() + b"\n" for name in ids)
    cut = whole[: data.draw(st.integers(0, len(whole)))]

    answers = answers_of(cut, lines=len(ids))

    told = [answer.id for answer in answers if answer.id]
    assert told == ids[: len(told)]
    assert len(told) == len(ids) or isinstance(answers[-1].error, ResultsCutOff)
