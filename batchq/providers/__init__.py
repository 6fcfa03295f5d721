"""Clients of LLM endpoints, one module a wire format."""

from batchq.providers.registry import get_provider

__all__ = ["get_provider"]
