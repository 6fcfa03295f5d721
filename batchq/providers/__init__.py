"""Clients of LLM endpoints, one module a wire format."""

from batchq.providers.registry import get_provider, get_uploads

__all__ = ["get_provider", "get_uploads"]
