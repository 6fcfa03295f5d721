"""Finds the client of a provider's `kind`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points

from batchq.errors import UsageError
from batchq.ports import Provider
from batchq.providers.anthropic import AnthropicMessages
from batchq.providers.anthropic_uploads import AnthropicUploads
from batchq.providers.openai import OpenAIChat
from batchq.providers.openai_uploads import OpenAIUploads
from batchq.uploads import UploadProvider

ENTRY_POINTS = "batchq.providers"
"""The entry-point group of other packages' providers: a name, and a class without arguments."""
UPLOAD_ENTRY_POINTS = "batchq.uploads"
"""The same for what speaks the batch formats of other packages' providers."""

_BUILT_IN: dict[str, Callable[[], Provider]] = {
    "openai": OpenAIChat,
    "simulator": OpenAIChat,
    "anthropic": AnthropicMessages,
}


@cache
def get_provider(kind: str) -> Provider:
    """Returns the one instance of this process; raises UsageError that lists the known kinds."""
    built_in = _BUILT_IN.get(kind)
    if built_in:
        return built_in()
    installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if kind not in installed:
        known = ", ".join(sorted({*_BUILT_IN, *installed}))
        raise UsageError(f"unknown provider kind {kind!r}; known are {known}")
    provider: Provider = installed[kind].load()()
    return provider


@cache
def get_uploads(kind: str) -> UploadProvider:
    """Returns what speaks a kind's batch format; raises UsageError if nothing does."""
    chat = get_provider(kind) if kind in _BUILT_IN else None
    if isinstance(chat, OpenAIChat):
        return OpenAIUploads(chat.dialects)
    if isinstance(chat, AnthropicMessages):
        return AnthropicUploads()
    installed = {point.name: point for point in entry_points(group=UPLOAD_ENTRY_POINTS)}
    if kind not in installed:
        known = ", ".join(sorted({*_BUILT_IN, *installed}))
        raise UsageError(f"provider kind {kind!r} has no batches; these have: {known}")
    uploads: UploadProvider = installed[kind].load()()
    return uploads
