"""An answer that came by an upload, on its way to the item that asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchq.endpoint import Prices
from batchq.errors import ProviderError, ServerFailed
from batchq.outcome import Attempt, Usage
from batchq.plan import decode
from batchq.planning.pricing import cost
from batchq.ports import ChatReply

NO_ANSWER = "no_answer"
"""The kind of an error that says: the provider's files have no line for the item."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What an upload brought for one item: a reply, or the `kind` of an error.

    `upload` is its tag. `input_tokens` and `output_tokens` are paid, also those of an answer that
    was cut off or refused; `calls` is 1 if they are.
    """

    upload: str
    text: str = ""
    model: str = ""
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    kind: str = ""
    message: str = ""
    raw: str = ""
    retryable: bool = True

    @classmethod
    def reply(cls, upload: str, reply: ChatReply) -> Delivered:
        """What came as an answer."""
        used = reply.usage
        return cls(
            upload, reply.text, reply.model, used.calls, used.input_tokens, used.output_tokens
        )

    @classmethod
    def error(cls, upload: str, error: ProviderError) -> Delivered:
        """What came as an error."""
        paid = error.tokens
        return cls(
            upload,
            calls=int(sum(paid) > 0),
            input_tokens=paid[0],
            output_tokens=paid[1],
            kind=error.kind,
            message=str(error),
            raw=error.raw,
            retryable=error.retryable,
        )

    def usage(self, prices: Prices | None) -> Usage:
        """What it cost, by the prices of uploads."""
        used = Usage(self.calls, self.input_tokens, self.output_tokens)
        return cost(used, prices) if self.calls else Usage()

    def as_error(self) -> ProviderError | None:
        """The error that a call would have raised; None for a reply."""
        if not self.kind:
            return None
        of_kind = {one.kind: one for one in ProviderError.__subclasses__()}
        made = of_kind.get(self.kind, ServerFailed)(
            self.message, raw=self.raw, tokens=(self.input_tokens, self.output_tokens)
        )
        made.kind, made.retryable = self.kind, self.retryable
        return made


def not_taken(text: str, tried: Sequence[Attempt]) -> Delivered | None:
    """Reads what an upload brought for an item, unless a try that was kept has taken it."""
    if not text:
        return None
    found = decode(Delivered, text)
    return None if any(one.upload == found.upload for one in tried) else found
