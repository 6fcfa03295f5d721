"""The names that limits are kept under."""

from __future__ import annotations

import hashlib
import re

from batchq.plan import ProviderSpec


def provider_key(provider: ProviderSpec) -> str:
    """Names what limits are shared by: the provider's name at its endpoint."""
    endpoint = hashlib.sha256(provider.base_url.rstrip("/").encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', provider.name)}-{endpoint}"


def limit_key(provider: ProviderSpec, part: str) -> str:
    """Builds a Redis key; all of a provider share a hash tag, so one cluster node has them."""
    return f"{{batchq:limit:{provider_key(provider)}}}:{part}"
