"""How messages are written: as JSON, and signed where there is a key."""

from __future__ import annotations

import json
from typing import Any

from kombu.serialization import register
from kombu.utils.json import dumps

from batchq.broker.signing import Signer

MAX_MESSAGE_BYTES = 24 * 1024 * 1024
"""A longer message is refused unread; one of an item is shorter (`store.frozen`)."""
PLAIN, PLAIN_TYPE = "batchq-json", "application/x-batchq"
SIGNED, SIGNED_TYPE = "batchq-signed", "application/x-batchq-signed"
_PURPOSE = "message"
_signers: dict[str, Signer] = {}


def json_of(signer: Signer | None) -> str:
    """Makes the way to write messages known to Celery; returns its name.

    Control commands, such as one that ends a worker, are signed like tasks: Celery writes them in
    the same way. Not Celery's own JSON: that takes some items for texts of types it knows.
    """
    if signer is None:
        register(PLAIN, _write_plain, _read_plain, PLAIN_TYPE, "utf-8")
        return PLAIN
    name = f"{SIGNED}-{signer.name}"
    _signers[signer.name] = signer

    def write(value: Any) -> Any:
        return sealed(name, dumps(value, ensure_ascii=False))

    register(name, write, _read_signed, SIGNED_TYPE, "utf-8")
    return name


def sealed(name: str, text: str) -> bytes:
    """What a way to write messages, by its name, makes of a text that is JSON already."""
    signer = _signers.get(name.removeprefix(f"{SIGNED}-"))
    return _encoded(signer.seal(_PURPOSE, text) if signer else text)


def _write_plain(value: Any) -> Any:  # bytes; the types of kombu know of texts alone
    return _encoded(dumps(value, ensure_ascii=False))


def _read_plain(payload: Any) -> Any:
    return json.loads(_decoded(payload))


def _read_signed(payload: Any) -> Any:
    sealed = _decoded(payload)
    # One that is signed by another key says so, whichever of ours looks at it.
    signer = _signers.get(sealed[:8]) or next(iter(_signers.values()))
    return json.loads(signer.open(_PURPOSE, sealed))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decoded(payload: Any) -> str:
    if isinstance(payload, str):
        return payload
    return bytes(payload).decode("utf-8", "surrogatepass")
