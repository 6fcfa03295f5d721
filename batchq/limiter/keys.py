"""The names that limits are kept under."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from batchq.endpoint import ProviderSpec

KNOWN = "batchq:limits"
"""Hash: provider key -> name, address and limits of every provider that was called."""


def provider_key(provider: ProviderSpec) -> str:
    """Names what limits are shared by: the provider's name at its endpoint."""
    return _named(provider.name, provider.base_url)


def limit_key(key: str, part: str) -> str:
    """Builds a Redis key; all of a provider share a hash tag, so one cluster node has them."""
    return f"{{batchq:limit:{key}}}:{part}"


@lru_cache(maxsize=1024)  # asked four times a call
def _named(name: str, base_url: str) -> str:
    endpoint = hashlib.sha256(base_url.rstrip("/").encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}-{endpoint}"
