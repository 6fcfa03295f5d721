"""Clients of LLM endpoints, one module a wire format."""
