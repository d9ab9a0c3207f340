"""The catalogue on a real SQLite file: its tables, of this version and of those before."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import create_async_engine

from app.catalog import Catalog
from app.errors import ConfigurationError, StoreUnavailable
from app.narration.models import StepKind
from app.platform.database import HEAD, _alembic
from app.platform.tables import Base, StepRow
from app.speech.choices import Scope
from tests.support import real_services
from tests.support.published import publish

pytestmark = pytest.mark.anyio

PEPPER = SecretStr("pepper")


FIRST_FORM = Path(__file__).parents[1] / "support" / "first_form.sql"


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


@pytest.fixture
async def migrated(tmp_path: Path) -> AsyncIterator[Catalog]:
    """What a catalogue of the first public form becomes."""
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.executescript(FIRST_FORM.read_text())
    connection.close()
    catalog = Catalog(f"sqlite:///{tmp_path}/old.db", pepper=PEPPER)
    await catalog.migrate()
    yield catalog
    await catalog.aclose()


async def test_a_catalogue_of_the_first_public_form_becomes_what_a_fresh_one_is(
    catalog: Catalog, migrated: Catalog, tmp_path: Path
) -> None:
    assert await migrated.revision() == await catalog.revision()
    assert schema(tmp_path / "old.db") == schema(tmp_path / "catalog.db")


async def test_a_catalogue_of_the_first_public_form_keeps_what_is_in_it(migrated: Catalog) -> None:
    [key] = await migrated.keys.all()
    assert (key.id, key.scopes) == ("0123456789ab", {Scope.SPEAK})
    [voice] = await migrated.voices.published()
    assert (voice.name, voice.prompt_name) == ("Mary", "abcdefghijkl")
    assert voice.adapter
    assert (voice.adapter.lora_id, voice.adapter.version, voice.adapter.sha256) == (7, 2, {"a": "0"})
    record = await migrated.voices.get("abcdefghijkl")
    assert (record.sample_count, record.sample_s) == (1, 61.5)
    assert record.consent
    assert record.consent.statement == "drawer 3"
    assert (await migrated.jobs.get("job-1")).revision == 9
    again = await publish(migrated, "Mary", uri="s3://b/3/", sha256={"a": "1"})
    assert again.adapter
    assert (again.adapter.lora_id, again.adapter.version) == (8, 3)


async def test_steps_of_the_first_public_form_gain_their_kind(migrated: Catalog) -> None:
    async with migrated.database.reading() as connection:
        rows = await connection.execute(select(StepRow.number, StepRow.kind).order_by(StepRow.number))
        assert rows.all() == [(0, "plan"), (1, "chapter"), (12, "chapter"), (1_000_000, "master")]
    plan = await migrated.steps.claim("nar-1")
    assert plan
    assert (plan.kind, plan.attempt) == (StepKind.PLAN, 3)


@pytest.mark.skipif(not real_services.WANTED, reason="make test-real starts PostgreSQL")
async def test_a_postgresql_of_the_first_public_form_becomes_what_a_fresh_one_is(
    request: pytest.FixtureRequest,
) -> None:
    running, template = request.getfixturevalue("postgres")
    with running.database() as old, running.database(template=template) as fresh:
        _make_first_form(running.url(old))
        catalog = Catalog(running.url(old), pepper=PEPPER)
        await catalog.migrate()
        assert columns(running.url(old)) == columns(running.url(fresh))
        [key] = await catalog.keys.all()
        assert (key.id, key.project_id) == ("0123456789ab", "default")
        [voice] = await catalog.voices.published()
        again = await publish(catalog, "Mary", uri="s3://b/3/", sha256={"a": "1"})
        assert voice.adapter and again.adapter
        assert (voice.adapter.lora_id, again.adapter.lora_id) == (7, 8)
        plan = await catalog.steps.claim("nar-1")
        assert plan and plan.kind is StepKind.PLAN
        await catalog.aclose()


def _make_first_form(url: str) -> None:
    """The tables by the migration that has them, and the rows of the SQLite file."""
    from alembic import command

    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        command.upgrade(_alembic(connection), "0003")
        # Its rows say 0 for false, as SQLite does.
        connection.exec_driver_sql(
            "UPDATE pg_cast SET castcontext = 'a' WHERE castsource = 'int4'::regtype AND casttarget = 'bool'::regtype"
        )
        _, _, rows = FIRST_FORM.read_text().partition("INSERT INTO alembic_version VALUES ('0003');")
        for statement in filter(str.strip, rows.split(";")):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("SELECT setval(pg_get_serial_sequence('adapter_versions', 'lora_id'), 7)")
    engine.dispose()


def columns(url: str) -> list[tuple[Any, ...]]:
    """Of every table: names, types, whether they may be null, defaults; and the indexes."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns "
            "WHERE table_schema = 'public' UNION ALL "
            "SELECT tablename, indexname, indexdef, NULL, NULL FROM pg_indexes WHERE schemaname = 'public'"
        )
        rows = sorted((tuple(row) for row in found), key=str)
    engine.dispose()
    return rows


async def test_a_database_without_tables_has_no_revision(url: str) -> None:
    catalog = Catalog(url, pepper=PEPPER)
    assert (await catalog.revision())[0] is None
    await catalog.aclose()


async def test_the_migrations_make_the_tables_that_the_code_declares(catalog: Catalog, tmp_path: Path) -> None:
    assert schema(tmp_path / "catalog.db") == schema(await declared_tables(tmp_path))


async def declared_tables(directory: Path) -> Path:
    declared = create_async_engine(f"sqlite+aiosqlite:///{directory}/declared.db")
    async with declared.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await declared.dispose()
    return directory / "declared.db"


def schema(path: Path) -> dict[str, Any]:
    """Each table's columns, foreign keys and indexes (an index's columns, and whether it is unique and partial)."""
    with sqlite3.connect(path) as connection:

        def pragma(name: str, of: str) -> list[tuple[Any, ...]]:
            return connection.execute(f"PRAGMA {name}({of})").fetchall()

        found = {
            table: (
                pragma("table_info", table),
                pragma("foreign_key_list", table),
                {
                    name: (unique, partial, pragma("index_info", name))
                    for _, name, unique, _, partial in pragma("index_list", table)
                },
            )
            for table in Base.metadata.tables
        }
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
