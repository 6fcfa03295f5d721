"""What lasts: run folders, the catalog and the cache of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchq.store.cache import MemoryCache, open_cache
from batchq.store.folder import CollateResult, RunFolder
from batchq.store.metadata import Metadata
from batchq.store.names import safe_name
from batchq.store.outputs import Outputs

if TYPE_CHECKING:
    from batchq.store.catalog import SqlCatalog, open_catalog

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


def __getattr__(name: str) -> Any:
    """Loads the catalog when it is asked for: SQLAlchemy takes 200 ms."""
    if name in ("SqlCatalog", "open_catalog"):
        from batchq.store import catalog

        return getattr(catalog, name)
    raise AttributeError(name)
