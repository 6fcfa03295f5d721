"""Opens a database: one engine for SQLite and PostgreSQL, the schema made once."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    MetaData,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from batchq.errors import StoreError
from batchq.store.tables import PIPELINE_STATS, SCHEMA_VERSION, about, metadata

BUSY_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10
_SCHEMA_LOCK = 0x62617463  # "batc": whoever holds this lock in PostgreSQL makes the schema


@dataclass(frozen=True, slots=True)
class Schema:
    """What is in a database, and how people are told about it.

    `if_lost` says what becomes of its content when somebody moves it away. A file that
    `is_private` can be read by its owner only.
    """

    name: str
    setting: str
    metadata: MetaData
    about: Table
    version: int
    if_lost: str
    views: tuple[str, ...] = ()
    is_private: bool = False


CATALOG = Schema(
    name="catalog",
    setting="BATCHQ_CATALOG_URL",
    metadata=metadata,
    about=about,
    version=SCHEMA_VERSION,
    if_lost="it can be made again from the run folders",
    views=(PIPELINE_STATS,),
)


def open_engine(url: str, schema: Schema = CATALOG) -> Engine:
    """Connects to the database and makes the schema if it is not there; StoreError if it fails."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(
            f"the {schema.name}'s URL cannot be read: write sqlite:///path/{schema.name}.sqlite or "
            "postgresql://user:password@host/database"
        ) from error
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql", "postgres"):
        raise StoreError(
            f"{schema.name} {_shown(parsed)}: {backend} is not supported: "
            "use sqlite:/// or postgresql://"
        )
    engine = _sqlite(parsed, schema) if backend == "sqlite" else _postgres(parsed, schema)
    with explained(engine, schema):
        _make_schema(engine, schema)
    return engine


@contextmanager
def explained(engine: Engine, schema: Schema = CATALOG) -> Iterator[None]:
    """Turns what the database raises into a StoreError that names it and a way out."""
    try:
        yield
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".?")
        raise StoreError(
            f"{schema.name} {_shown(engine.url)}: {reason}. {_advice(reason, schema)}"
        ) from error


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    key: tuple[str, ...],
    kept: tuple[str, ...] = (),
) -> None:
    """Inserts rows, or replaces those with the same key, but for the columns `kept`."""
    statement: Any
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as insert_sqlite

        statement = insert_sqlite(table)
    else:  # 40 ms that readers of a catalog do not have
        from sqlalchemy.dialects.postgresql import insert as insert_postgres

        statement = insert_postgres(table)
    replaced = [name for name in rows[0] if name not in key and name not in kept]
    changes = {name: statement.excluded[name] for name in replaced}
    connection.execute(
        statement.on_conflict_do_update(index_elements=list(key), set_=changes), list(rows)
    )


def _advice(reason: str, schema: Schema) -> str:
    if "locked" in reason:
        return f"Another process has held it for {BUSY_TIMEOUT_S:g} s: end that one, or try again"
    if "not a database" in reason or "malformed" in reason:
        return f"Move the file away; {schema.if_lost}"
    if "readonly" in reason or "unable to open" in reason:
        return f"Make its folder writable, or set {schema.setting} to another place"
    if "full" in reason:
        return "Free some space, then go on with `batchq resume`"
    return f"Check {schema.setting} and that the server is up"


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _sqlite(url: URL, schema: Schema) -> Engine:
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S}}
    if url.database in (None, "", ":memory:"):
        # one connection for all threads: each would see an empty database of its own
        options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    else:
        path = Path(str(url.database)).absolute()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if schema.is_private:  # SQLite makes its other files like this one
                os.close(os.open(path, os.O_CREAT | os.O_RDONLY, 0o600))
        except OSError as error:
            raise StoreError(
                f"{schema.name} {_shown(url)}: {error}. Set {schema.setting} to another place"
            ) from error
    engine = create_engine(url, **options)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # `_begin_sqlite` begins: the driver would not for DDL
    connection.execute("PRAGMA synchronous=NORMAL")  # safe with WAL; the folders are the truth


def _begin_sqlite(connection: Connection) -> None:
    is_write = connection.get_execution_options().get("is_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def _postgres(url: URL, schema: Schema) -> Engine:
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
            pool_pre_ping=True,
        )
    except ModuleNotFoundError as error:
        raise StoreError(
            f"{schema.name} {_shown(url)}: {error}. Install it with: pip install 'batchq[postgres]'"
        ) from error


def _make_schema(engine: Engine, schema: Schema) -> None:
    """Makes the tables; of two processes at once one makes them and the other one waits."""
    is_sqlite = engine.dialect.name == "sqlite"
    if is_sqlite:
        _switch_to_wal(engine)
    with engine.execution_options(is_write=True).begin() as connection:
        if not is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
        if inspect(connection).has_table(schema.about.name):
            _check_version(connection, schema)
            return
        schema.metadata.create_all(connection)
        for view in schema.views:
            connection.execute(text(view))
        row = {"name": "schema_version", "value": str(schema.version)}
        connection.execute(insert(schema.about).values(row))


def _check_version(connection: Connection, schema: Schema) -> None:
    column = schema.about.c
    query = select(column.value).where(column.name == "schema_version")
    found = connection.execute(query).scalar()
    if found != str(schema.version):
        raise StoreError(
            f"{schema.name} {_shown(connection.engine.url)}: it has schema {found}, this batchq "
            f"reads {schema.version}. Move it away, or set {schema.setting} to a new one: "
            f"{schema.if_lost}"
        )


def _switch_to_wal(engine: Engine) -> None:
    """Makes readers and the writer independent of each other; the file remembers it.

    SQLite answers "locked" at once, whatever the timeout, if two processes switch together.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            raw = engine.raw_connection()
            try:
                raw.cursor().execute("PRAGMA journal_mode=WAL")
                return
            finally:
                raw.close()
        except sqlite3.Error as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise DBAPIError("PRAGMA journal_mode=WAL", None, error) from error
            time.sleep(0.02)
