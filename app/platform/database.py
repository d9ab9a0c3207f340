"""The database under the catalogue: SQLite on one machine, PostgreSQL on several, the same statements on both.

Writes to SQLite begin with BEGIN IMMEDIATE under WAL: that lets several processes share the file without lock errors.
The tables are declared in `app.platform.tables` and made by the migrations beside this file.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import aiosqlite
from pydantic_core import to_jsonable_python
from sqlalchemy import Connection, event, func, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.errors import ConfigurationError, StoreUnavailable
from app.platform.settings import without_secrets

BUSY_TIMEOUT_MS = 5_000
WAL_RETRY_S = 0.02

HEAD = "0006"
"""The newest of the migrations."""

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


def plain(value: Any) -> Any:
    """A model, an enum, or a mapping or tuple of them, as a JSON column keeps it."""
    return to_jsonable_python(value, by_alias=False)


class Database:
    """One process's connection pool. Every transaction raises StoreUnavailable when the database does not answer."""

    def __init__(self, url: str) -> None:
        self._engine = _open(url)
        self._reads = self._engine.execution_options(reads_only=True)

    async def aclose(self) -> None:
        await self._engine.dispose()

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return _answering(self._reads.connect())

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction, committed at the end of the body."""
        return _answering(self._engine.begin())

    async def migrate(self) -> None:
        """Bring the tables to this version's form. Safe to run from several processes at once."""
        async with self.writing() as connection:
            await connection.run_sync(_upgrade)

    async def revision(self) -> tuple[str | None, str]:
        """The tables' revision (None: there are no tables) and the one this version needs."""
        async with self.reading() as connection:
            return await connection.run_sync(_revision)


@asynccontextmanager
async def _answering(opening: AbstractAsyncContextManager[AsyncConnection]) -> AsyncIterator[AsyncConnection]:
    """`opening`, with the database's failures told as ours."""
    try:
        async with opening as connection:
            yield connection
    except (SQLAlchemyError, OSError) as error:
        reason = type(getattr(error, "orig", error)).__name__
        log.warning("catalogue unavailable", extra={"error": reason})
        raise StoreUnavailable(
            f"the catalogue does not answer ({reason}); is the database of CARILLON_DATABASE_URL running, "
            "writable and migrated? `carillon doctor` looks",
            retry_after_s=1,
        ) from error


def _open(url: str) -> AsyncEngine:
    """An engine for `url`; nothing is connected yet. Raises ConfigurationError for a database we do not speak to."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"CARILLON_DATABASE_URL={without_secrets(url)} is no address of a database; "
            "use sqlite:///file.db or postgresql://host/name"
        ) from None
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_async_engine(parsed.set(drivername="sqlite+aiosqlite"))
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    if parsed.get_backend_name() == "postgresql":
        return create_async_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    raise ConfigurationError(
        f"CARILLON_DATABASE_URL names {parsed.get_backend_name()!r}; use sqlite:///file.db or postgresql://host/name"
    )


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.run_async(_prepared_sqlite)


async def _prepared_sqlite(connection: aiosqlite.Connection) -> None:
    connection.isolation_level = None
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "synchronous=NORMAL", "foreign_keys=ON"):
        await connection.execute(f"PRAGMA {pragma}")
    # The first change of a new file to WAL heeds no busy_timeout: another process may be making it at this moment.
    give_up_at = monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            await connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if monotonic() > give_up_at:
                raise
            await asyncio.sleep(WAL_RETRY_S)


def _begin_sqlite(connection: Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def one_at_a_time(connection: Connection) -> None:
    """Wait until no other transaction is between here and its end. SQLite's BEGIN IMMEDIATE has seen to it already."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(0xCA21110)))


def _upgrade(connection: Connection) -> None:
    one_at_a_time(connection)
    if _is_at(connection, HEAD):
        return
    from alembic import command

    command.upgrade(_alembic(connection), "head")


def _is_at(connection: Connection, revision: str) -> bool:
    """Without Alembic, which is a good part of a start."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [revision]


def _revision(connection: Connection) -> tuple[str | None, str]:
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_alembic(connection)).get_current_head()
    return MigrationContext.configure(connection).get_current_revision(), head or ""


def _alembic(connection: Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
