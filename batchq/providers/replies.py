"""What a provider's answer comes to, once its own form is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchq.endpoint import ProviderSpec
from batchq.errors import Refused, Truncated
from batchq.outcome import Usage
from batchq.ports import ChatReply
from batchq.providers.failures import retry_after_s
from batchq.providers.quotas import read_quotas

_REQUEST_IDS = ("x-request-id", "request-id")


def reply_of(
    data: Mapping[str, Any],
    headers: Mapping[str, str],
    provider: ProviderSpec,
    text: str,
    tokens: tuple[int, int],
    *,
    declined: str = "",
    is_cut_off: bool = False,
) -> ChatReply:
    """The reply with what all providers tell alike; `tokens` are input and output.

    `headers` are those of its HTTP answer; a line of an upload has none.

    Raises Refused if it was `declined`, with why, and Truncated if it is cut off.
    """
    if declined:
        raise Refused(f"the model declined: {declined[:500]}", raw=text, tokens=tokens)
    if is_cut_off:
        raise Truncated(
            f"the answer was cut off after {tokens[1]} tokens; raise options.max_tokens",
            raw=text,
            tokens=tokens,
        )
    ids = (headers.get(name) for name in _REQUEST_IDS)
    return ChatReply(
        text=text,
        model=str(data.get("model") or provider.model),
        usage=Usage(1, *tokens),
        request_id=next(filter(None, ids), "") or str(data.get("id") or ""),
        retry_after_s=retry_after_s(headers),
        quotas=read_quotas(headers),
    )
