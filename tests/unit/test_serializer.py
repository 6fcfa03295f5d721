from __future__ import annotations

from typing import Any

import pytest
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.serialization import dumps, loads

from batchq.broker.signing import Signer
from batchq.queue.message import MessageRefused, decode_end, encode_end
from batchq.queue.serializer import SIGNED_TYPE, json_of

KEY = Signer("the key of these tests")


def sent(value: Any, signer: Signer | None) -> Any:
    """What a worker reads of a message that was written with a key."""
    content_type, encoding, body = dumps(value, serializer=json_of(signer))
    return loads(body, content_type, encoding, accept={content_type})


@pytest.mark.parametrize("signer", [KEY, None])
@pytest.mark.parametrize(
    "value",
    [
        [[{"id": "ä \ud800 \0"}], {}, {"chord": None}],
        [[{"__type__": "datetime", "__value__": "no date"}], {}, {}],
        [[2**80, 0.1, None, True, ""], {}, {}],
    ],
)
def test_a_message_comes_as_it_was_sent(value: Any, signer: Signer | None) -> None:
    assert sent(value, signer) == value


def test_a_message_that_was_changed_on_its_way_is_refused() -> None:
    content_type, encoding, body = dumps([[{"run": "r1"}], {}, {}], serializer=json_of(KEY))

    with pytest.raises(DecodeError, match="changed after it was signed"):
        loads(body.replace(b"r1", b"r2"), content_type, encoding, accept={content_type})


def test_a_message_that_is_not_signed_is_refused_where_messages_are() -> None:
    json_of(KEY)
    content_type, encoding, body = dumps([[], {}, {}], serializer=json_of(None))

    with pytest.raises(ContentDisallowed, match="application/x-batchq"):
        loads(body, content_type, encoding, accept={SIGNED_TYPE})


def test_the_end_of_a_batch_comes_as_it_was_sent() -> None:
    assert decode_end(encode_end("r1", 2, 3)) == ("r1", 2, 3)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (("r1", 1, 0), "no mapping but list"),
        ((), "no mapping but list"),
        (({**encode_end("r1", 1, 0), "v": 2},), "version '2'"),
        (({**encode_end("r1", 1, 0), "batch": "0"},), "batch is str"),
        (({**encode_end("r1", 1, 0), "index": 1, "id": "", "data": 1},), "message of an item"),
    ],
)
def test_an_end_that_cannot_be_read_is_refused_by_name(message: Any, reason: str) -> None:
    with pytest.raises(MessageRefused, match=reason):
        decode_end(*message)
