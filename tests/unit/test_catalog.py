"""The catalogue on a real SQLite file: its tables, of this version and of those before."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from pydantic import SecretStr
from sqlalchemy import create_engine, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.catalog import Catalog
from app.errors import ConfigurationError, StoreUnavailable
from app.narration.models import StepKind
from app.platform.database import HEAD, _alembic
from app.platform.tables import Base, StepRow
from tests.support.published import publish

pytestmark = pytest.mark.anyio

PEPPER = SecretStr("pepper")


FIRST_FORM = """
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
INSERT INTO alembic_version VALUES ('0001');
CREATE TABLE api_keys (id VARCHAR NOT NULL PRIMARY KEY, name VARCHAR NOT NULL, digest VARCHAR NOT NULL,
    scopes JSON NOT NULL, created_at DATETIME NOT NULL, expires_at DATETIME, last_used_at DATETIME,
    revoked_at DATETIME);
CREATE TABLE voices (id VARCHAR NOT NULL PRIMARY KEY, name VARCHAR NOT NULL UNIQUE, model VARCHAR NOT NULL,
    language VARCHAR NOT NULL, version INTEGER NOT NULL, created_at DATETIME NOT NULL);
CREATE TABLE adapter_versions (lora_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    voice_id VARCHAR NOT NULL REFERENCES voices (id) ON DELETE CASCADE, version INTEGER NOT NULL, uri VARCHAR NOT NULL,
    sha256 JSON NOT NULL, rank INTEGER NOT NULL, created_at DATETIME NOT NULL, UNIQUE (voice_id, version));
INSERT INTO voices VALUES ('abcdefghijkl', 'Mary', 'standin', 'en', 2, '2026-01-01 00:00:00');
INSERT INTO adapter_versions VALUES (7, 'abcdefghijkl', 2, 's3://b/2/', '{"a": "0"}', 16, '2026-01-01 00:00:00');
"""

OLD_NARRATION = """
INSERT INTO narrations (id, state, voice, "cast", model, voices, format, options, source, title, takes, revision,
    cancel_requested, findings, created_at)
VALUES ('nar-1', 'queued', 'wren', '{}', 'standin', '{}', 'wav', '{}',
    '{"kind": "text", "file_name": "a.txt", "key": "k", "size_bytes": 3}', 'A book', '{}', 1, 0, '[]',
    '2026-01-01 00:00:00')
"""
OLD_STEP = """
INSERT INTO narration_steps (narration_id, number, attempt, setbacks, progress, failed, released_at)
VALUES ('nar-1', :number, 2, 0, '{"number": 1, "title": "One", "segments": 3}', 0, '2026-01-01 00:00:00')
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/catalog.db"


@pytest.fixture
async def catalog(url: str) -> AsyncIterator[Catalog]:
    catalog = Catalog(url, pepper=PEPPER)
    await catalog.migrate()
    yield catalog
    await catalog.aclose()


async def test_migrating_at_once_from_several_processes_does_it_once(url: str) -> None:
    catalogs = [Catalog(url, pepper=PEPPER) for _ in range(4)]
    await asyncio.gather(*(catalog.migrate() for catalog in catalogs))
    have, need = await catalogs[0].revision()
    assert have == need
    for catalog in catalogs:
        await catalog.aclose()


async def test_a_catalogue_of_the_first_form_keeps_its_voices_and_keys(
    catalog: Catalog, url: str, tmp_path: Path
) -> None:
    old = tmp_path / "old.db"
    with sqlite3.connect(old) as connection:
        connection.executescript(FIRST_FORM)
    connection.close()
    migrated = Catalog(f"sqlite:///{old}", pepper=PEPPER)
    await migrated.migrate()
    [voice] = await migrated.voices.published()
    assert (voice.name, voice.prompt_name) == ("Mary", "abcdefghijkl")
    assert voice.adapter
    assert (voice.adapter.lora_id, voice.adapter.version, voice.adapter.sha256) == (7, 2, {"a": "0"})
    again = await publish(migrated, "Mary", uri="s3://b/3/", sha256={"a": "1"})
    assert again.adapter
    assert (again.adapter.lora_id, again.adapter.version) == (8, 3)
    await migrated.aclose()


async def test_steps_of_the_third_form_gain_their_kind(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    engine = create_engine(f"sqlite:///{old}")
    with engine.begin() as connection:
        command.upgrade(_alembic(connection), "0003")
        connection.execute(text(OLD_NARRATION))
        for number in (0, 1, 12, 1_000_000):
            connection.execute(text(OLD_STEP), {"number": number})
    engine.dispose()
    migrated = Catalog(f"sqlite:///{old}", pepper=PEPPER)
    await migrated.migrate()
    async with migrated.database.reading() as connection:
        rows = await connection.execute(select(StepRow.number, StepRow.kind).order_by(StepRow.number))
        assert rows.all() == [(0, "plan"), (1, "chapter"), (12, "chapter"), (1_000_000, "master")]
    plan = await migrated.steps.claim("nar-1")
    assert plan
    assert (plan.kind, plan.attempt) == (StepKind.PLAN, 3)
    await migrated.aclose()
    assert columns(old) == columns(await declared_tables(tmp_path))


async def test_a_database_without_tables_has_no_revision(url: str) -> None:
    catalog = Catalog(url, pepper=PEPPER)
    assert (await catalog.revision())[0] is None
    await catalog.aclose()


async def test_the_migrations_make_the_tables_that_the_code_declares(catalog: Catalog, tmp_path: Path) -> None:
    assert columns(tmp_path / "catalog.db") == columns(await declared_tables(tmp_path))


async def declared_tables(directory: Path) -> Path:
    declared = create_async_engine(f"sqlite+aiosqlite:///{directory}/declared.db")
    async with declared.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await declared.dispose()
    return directory / "declared.db"


def columns(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with sqlite3.connect(path) as connection:
        found = {table: connection.execute(f"PRAGMA table_info({table})").fetchall() for table in Base.metadata.tables}
    connection.close()
    return found


async def test_a_database_that_fails_is_an_error_of_ours_with_a_remedy(url: str) -> None:
    without_tables = Catalog(url, pepper=PEPPER)
    with pytest.raises(StoreUnavailable, match="CARILLON_DATABASE_URL"):
        await without_tables.keys.authenticate("cari_x_y")
    await without_tables.aclose()


async def test_an_address_that_is_none_is_refused_without_its_password() -> None:
    with pytest.raises(ConfigurationError, match="CARILLON_DATABASE_URL") as caught:
        Catalog("user:hunter2@host", pepper=PEPPER)
    assert "hunter2" not in caught.value.message


async def test_a_database_of_another_kind_is_refused_with_those_that_serve() -> None:
    with pytest.raises(ConfigurationError, match="postgresql"):
        Catalog("mysql://host/name", pepper=PEPPER)


async def test_the_newest_migration_is_the_one_that_a_start_looks_for(catalog: Catalog) -> None:
    _, newest = await catalog.revision()
    assert newest == HEAD
