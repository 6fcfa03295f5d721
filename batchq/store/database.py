"""Opens the catalog's database: one engine for SQLite and PostgreSQL, the schema made once."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
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


def open_engine(url: str) -> Engine:
    """Connects to the database and makes the schema if it is not there; StoreError if it fails."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(
            "the catalog's URL cannot be read: write sqlite:///path/catalog.sqlite or "
            "postgresql://user:password@host/database"
        ) from error
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql", "postgres"):
        raise StoreError(
            f"catalog {_shown(parsed)}: {backend} is not supported: use sqlite:/// or postgresql://"
        )
    engine = _sqlite(parsed) if backend == "sqlite" else _postgres(parsed)
    with explained(engine):
        _make_schema(engine)
    return engine


@contextmanager
def explained(engine: Engine) -> Iterator[None]:
    """Turns what the database raises into a StoreError that names it and a way out."""
    try:
        yield
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".?")
        raise StoreError(f"catalog {_shown(engine.url)}: {reason}. {_advice(reason)}") from error


def _advice(reason: str) -> str:
    if "locked" in reason:
        return f"Another process has held it for {BUSY_TIMEOUT_S:g} s: end that one, or try again"
    if "not a database" in reason or "malformed" in reason:
        return "Move the file away; it can be made again from the run folders"
    if "readonly" in reason or "unable to open" in reason:
        return "Make its folder writable, or set BATCHQ_CATALOG_URL to another place"
    if "full" in reason:
        return "Free some space, then go on with `batchq resume`"
    return "Check BATCHQ_CATALOG_URL and that the server is up"


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _sqlite(url: URL) -> Engine:
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S}}
    if url.database in (None, "", ":memory:"):
        # one connection for all threads: each would see an empty database of its own
        options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    else:
        folder = Path(str(url.database)).absolute().parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"catalog {_shown(url)}: {error}. Set BATCHQ_CATALOG_URL to another place"
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


def _postgres(url: URL) -> Engine:
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
            pool_pre_ping=True,
        )
    except ModuleNotFoundError as error:
        raise StoreError(
            f"catalog {_shown(url)}: {error}. Install it with: pip install 'batchq[postgres]'"
        ) from error


def _make_schema(engine: Engine) -> None:
    """Makes the tables; of two processes at once one makes them and the other one waits."""
    is_sqlite = engine.dialect.name == "sqlite"
    if is_sqlite:
        _switch_to_wal(engine)
    with engine.execution_options(is_write=True).begin() as connection:
        if not is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
        if inspect(connection).has_table(about.name):
            _check_version(connection)
            return
        metadata.create_all(connection)
        connection.execute(text(PIPELINE_STATS))
        row = {"name": "schema_version", "value": str(SCHEMA_VERSION)}
        connection.execute(insert(about).values(row))


def _check_version(connection: Connection) -> None:
    query = select(about.c.value).where(about.c.name == "schema_version")
    found = connection.execute(query).scalar()
    if found != str(SCHEMA_VERSION):
        raise StoreError(
            f"catalog {_shown(connection.engine.url)}: it has schema {found}, this batchq reads "
            f"{SCHEMA_VERSION}. Move it away, or set BATCHQ_CATALOG_URL to a new one: it can be "
            "made again from the run folders"
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
