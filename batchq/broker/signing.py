"""Signs what workers and coordinators act on, so that a Redis others can write to runs nothing.

What is signed: messages (`queue/serializer.py`), the steps of a run and the place of its folder
(`ledger/redis.py`). Answers and outcomes are not: they are data, and run nothing.
"""

from __future__ import annotations

import hmac
from urllib.parse import unquote, urlsplit

OFF = "off"
MIN_CHARACTERS = 16
_DIGEST = "sha256"
_TAG_CHARACTERS = 64
_NAME_CHARACTERS = 8


class NotSigned(ValueError):
    """Raised for a text that is not signed by our key, or was changed after it was."""


class Signer:
    """Puts a tag before a text that only holders of the secret can make.

    `name` tells keys apart without giving them away, so that two sides with different keys find out
    why they do not understand each other.
    """

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"batchq signing key", _DIGEST)
        self.name = hmac.digest(self._key, b"name", _DIGEST).hex()[:_NAME_CHARACTERS]

    def seal(self, purpose: str, text: str) -> str:
        """The text with its tag. What was sealed for one purpose opens for no other."""
        return f"{self.name}.{self._tag(purpose, text)}\n{text}"

    def open(self, purpose: str, sealed: str) -> str:
        """The text of `seal`; raises NotSigned that says what to do."""
        head, found, text = sealed.partition("\n")
        name, _, tag = head.partition(".")
        if not found or len(name) != _NAME_CHARACTERS or len(tag) != _TAG_CHARACTERS:
            raise NotSigned(
                "not signed. Whoever sent it has another batchq, or neither BATCHQ_SIGNING_KEY nor "
                "the password of the broker"
            )
        if name != self.name:
            raise NotSigned(
                f"signed with another key than ours ({name[:8]!r}, ours is {self.name!r}): set the "
                "same BATCHQ_SIGNING_KEY, or the same password of the broker, everywhere"
            )
        if not hmac.compare_digest(tag.encode(), self._tag(purpose, text).encode()):
            raise NotSigned("changed after it was signed")
        return text

    def _tag(self, purpose: str, text: str) -> str:
        signed = f"{purpose}\n{text}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, signed, _DIGEST).hex()


def signer_of(signing_key: str, broker_url: str) -> Signer | None:
    """The signer of a process by its settings; None if nothing is signed.

    Without a key of its own it is made of the broker's password, wherever the broker is: one host
    may name it by 127.0.0.1 and another by its address, and both must come to the same.
    """
    if signing_key == OFF:
        return None
    secret = signing_key or password_of(broker_url)
    return Signer(secret) if secret else None


def password_of(broker_url: str) -> str:
    """The password in a URL; empty if it has none."""
    return unquote(urlsplit(broker_url).password or "")


def is_local(broker_url: str) -> bool:
    """Whether a broker is on this host by its URL."""
    parts = urlsplit(broker_url)
    if "+socket" in parts.scheme:
        return True
    host = parts.hostname or "localhost"
    return host == "localhost" or host.startswith("127.") or host == "::1"
