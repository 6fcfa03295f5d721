"""What lasts: run folders, the catalog and the cache of answers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchq.store.cache import MemoryCache, open_cache
    from batchq.store.catalog import SqlCatalog, open_catalog
    from batchq.store.folder import CollateResult, RunFolder
    from batchq.store.metadata import Metadata
    from batchq.store.names import safe_name
    from batchq.store.outputs import Outputs

__all__ = [
    "CollateResult",
    "MemoryCache",
    "Metadata",
    "Outputs",
    "RunFolder",
    "SqlCatalog",
    "open_cache",
    "open_catalog",
    "safe_name",
]

_HOMES = {
    "CollateResult": "folder",
    "MemoryCache": "cache",
    "Metadata": "metadata",
    "Outputs": "outputs",
    "RunFolder": "folder",
    "SqlCatalog": "catalog",
    "open_cache": "cache",
    "open_catalog": "catalog",
    "safe_name": "names",
}


def __getattr__(name: str) -> Any:
    """Loads what is asked for: SQLAlchemy takes 200 ms, fsspec and pydantic 80."""
    if name in _HOMES:
        return getattr(import_module(f"batchq.store.{_HOMES[name]}"), name)
    raise AttributeError(name)
