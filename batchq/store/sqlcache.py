"""The cache of answers in SQLite, for one host, or in PostgreSQL, for many."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice

from sqlalchemy import Column, Float, MetaData, String, Table, Text, select

from batchq.engine.answers import decode_answer, decode_answers, encode_answer
from batchq.ports import KeptAnswer
from batchq.store.database import Schema, explained, open_engine, upsert

MANY = 500
"""Keys in one statement; older builds of SQLite take at most 999."""

_metadata = MetaData()
_about = Table(
    "cache_about",
    _metadata,
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)
_answers = Table(
    "answers",
    _metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    Column("stored_at", Float(53), nullable=False, index=True),  # to delete old ones by hand
)
CACHE = Schema(
    name="cache",
    setting="BATCHQ_CACHE_URL",
    metadata=_metadata,
    about=_about,
    version=1,
    if_lost="its answers would be paid again",
    is_private=True,
)


class SqlCache:
    """Implements ports.Cache; used by many threads and processes at once."""

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url, CACHE)
        self._writer = self._engine.execution_options(is_write=True)

    def close(self) -> None:
        """Closes its connections; it opens new ones when it is used again."""
        self._engine.dispose()

    def get(self, key: str) -> KeptAnswer | None:
        """See ports.Cache."""
        query = select(_answers.c.value).where(_answers.c.key == key)
        with explained(self._engine, CACHE), self._engine.connect() as connection:
            text = connection.execute(query).scalar()
        return None if text is None else decode_answer(text)

    def get_many(self, keys: Collection[str]) -> Mapping[str, KeptAnswer]:
        """See ports.Cache."""
        query = select(_answers.c.key, _answers.c.value)
        left = iter(keys)
        found: dict[str, KeptAnswer] = {}
        with explained(self._engine, CACHE), self._engine.connect() as connection:
            while some := [*islice(left, MANY)]:
                rows = connection.execute(query.where(_answers.c.key.in_(some)))
                found |= decode_answers((row.key, row.value) for row in rows)
        return found

    def put(self, key: str, answer: KeptAnswer) -> None:
        """See ports.Cache."""
        row = {"key": key, "value": encode_answer(answer), "stored_at": answer.stored_at}
        with explained(self._engine, CACHE), self._writer.begin() as connection:
            upsert(connection, _answers, [row], ("key",))
