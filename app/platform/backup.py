"""A copy of catalogue and store in a directory, and back into empty ones, on whichever databases and stores they are.

    catalogue.jsonl    a head with the tables' revision, then a row a line
    objects/KEY        what the store had

The rows are of one moment, and are read before the objects: what they name is there, unless it was deleted meanwhile. A
second backup into the same directory copies what is new. Secrets are in none: keep CARILLON_KEY_PEPPER elsewhere, or
the API keys in the copy open nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import Table, delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import ConfigurationError, Conflict, InvalidRequest
from app.platform.database import Database, plain
from app.platform.object_store import ObjectStore
from app.platform.tables import Base, Moment

FORMAT = 1
CATALOGUE, OBJECTS = "catalogue.jsonl", "objects"
ROWS_AT_ONCE = 500


@dataclass(frozen=True)
class Copied:
    """How much there was, and how many objects had to be copied."""

    rows: int
    objects: int
    copied: int


async def back_up(database: Database, store: ObjectStore, directory: Path) -> Copied:
    """Copy catalogue and store into `directory`. Raises StoreUnavailable, ConfigurationError for other tables."""
    directory.mkdir(parents=True, exist_ok=True)
    arriving, rows = directory / f"{CATALOGUE}.arriving", 0
    revision = await _revision(database)
    with arriving.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"format": FORMAT, "revision": revision}) + "\n")
        async for table, row in _rows(database):
            file.write(json.dumps({"table": table, "row": row}, ensure_ascii=False) + "\n")
            rows += 1
    objects = copied = 0
    for key, written in store.written(""):
        objects += 1
        path = _path(directory, key)
        if not path.exists() or path.stat().st_mtime <= written.timestamp():
            folder, _, name = key.rpartition("/")
            store.fetch(store.uri(folder), name, path)
            copied += 1
    arriving.replace(directory / CATALOGUE)
    return Copied(rows, objects, copied)


async def restore(database: Database, store: ObjectStore, directory: Path) -> Copied:
    """Bring a copy into an empty catalogue, and into the store what that lacks.

    Objects come first, so that no row names what is not there; done again after a failure, it goes on. Raises Conflict
    for a catalogue that has something, ConfigurationError for a copy of another version.
    """
    await database.migrate()
    revision, seeds = await _revision(database), await _made_by_migrations()
    with closing(_lines(directory)) as lines:
        head = next(lines)
        if (head.get("format"), head.get("revision")) != (FORMAT, revision):
            raise ConfigurationError(
                f"the copy in {directory} has tables of revision {head.get('revision')}, this version {revision}: "
                "restore it with the version that made it, then upgrade"
            )
        objects, copied = _restore_objects(store, directory)
        async with database.writing() as connection:
            await _empty(connection, seeds)
            rows = 0
            for table in Base.metadata.sorted_tables:
                rows += await _insert(connection, table, directory)
            await _go_on_counting(connection)
    return Copied(rows, objects, copied)


async def _revision(database: Database) -> str:
    here, wanted = await database.revision()
    if here != wanted:
        raise ConfigurationError(
            f"the tables have revision {here}, this version needs {wanted}: run `carillon migrate`"
        )
    return wanted


async def _rows(database: Database) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    async with database.reading() as connection:
        if connection.dialect.name == "postgresql":  # SQLite's transactions see one moment as they are
            await connection.execution_options(isolation_level="REPEATABLE READ")
        for table in Base.metadata.sorted_tables:
            result = await connection.stream(select(table))
            async for row in result.mappings():
                yield table.name, plain(dict(row))


def _lines(directory: Path) -> Generator[dict[str, Any]]:
    with (directory / CATALOGUE).open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _restore_objects(store: ObjectStore, directory: Path) -> tuple[int, int]:
    """How many there are, and how many the store lacked."""
    store.ensure_bucket()
    there, root = set(store.keys("")), directory / OBJECTS
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    missing = [path for path in paths if path.relative_to(root).as_posix() not in there]
    for path in missing:
        store.upload(path, path.relative_to(root).as_posix())
    return len(paths), len(missing)


async def _made_by_migrations() -> dict[str, set[tuple[Any, ...]]]:
    """The primary keys of the rows that a new catalogue has, by table: a copy has them, too."""
    with tempfile.TemporaryDirectory() as directory:
        database = Database(f"sqlite:///{directory}/new.db")
        try:
            await database.migrate()
            async with database.reading() as connection:
                return {table.name: await _primary_keys(connection, table) for table in Base.metadata.sorted_tables}
        finally:
            await database.aclose()


async def _primary_keys(connection: AsyncConnection, table: Table) -> set[tuple[Any, ...]]:
    """Some of them are enough to tell whether there are others than expected."""
    found = await connection.execute(select(*table.primary_key.columns).limit(ROWS_AT_ONCE))
    return {tuple(row) for row in found}


async def _empty(connection: AsyncConnection, seeds: Mapping[str, set[tuple[Any, ...]]]) -> None:
    """Take out what a new catalogue has by itself. Raises Conflict where there is more."""
    for table in reversed(Base.metadata.sorted_tables):
        if await _primary_keys(connection, table) - seeds[table.name]:
            raise Conflict(f"the catalogue has {table.name} already; restore into an empty database")
        await connection.execute(delete(table))


async def _insert(connection: AsyncConnection, table: Table, directory: Path) -> int:
    """The table's rows of the copy."""
    moments = [column.name for column in table.columns if isinstance(column.type, Moment)]
    batch: list[dict[str, Any]] = []
    rows = 0
    for line in _lines(directory):
        if line.get("table") != table.name:
            continue
        row = line["row"]
        batch.append(row | {name: datetime.fromisoformat(row[name]) for name in moments if row[name]})
        if len(batch) == ROWS_AT_ONCE:
            await connection.execute(insert(table), batch)
            rows, batch = rows + len(batch), []
    if batch:
        await connection.execute(insert(table), batch)
    return rows + len(batch)


async def _go_on_counting(connection: AsyncConnection) -> None:
    """Let PostgreSQL number new rows behind those that were brought; SQLite does so by itself."""
    if connection.dialect.name != "postgresql":
        return
    for table in Base.metadata.sorted_tables:
        if (column := table.autoincrement_column) is not None:
            await connection.execute(
                text(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', '{column.name}'), "
                    f"GREATEST((SELECT MAX({column.name}) FROM {table.name}), 1))"
                )
            )


def _path(directory: Path, key: str) -> Path:
    parts = PurePosixPath(key).parts
    if ".." in parts or key.startswith("/"):
        raise InvalidRequest(f"the store has an object {key!r}, which would lie outside the copy; delete it")
    return directory.joinpath(OBJECTS, *parts)
