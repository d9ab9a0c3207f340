"""The catalogue on a real SQLite file: keys that prove themselves, voices that gain versions."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import create_async_engine

from app.catalog import Catalog
from app.errors import AuthenticationFailed, ConfigurationError, InvalidRequest, StoreUnavailable
from app.platform.database import HEAD
from app.platform.tables import Base
from app.speech.choices import Scope
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


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def advance(self, **units: float) -> None:
        self.time += timedelta(**units)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/catalog.db"


@pytest.fixture
async def catalog(url: str, clock: Clock) -> AsyncIterator[Catalog]:
    catalog = Catalog(url, pepper=PEPPER, now=clock)
    await catalog.migrate()
    yield catalog
    await catalog.aclose()


async def test_a_new_key_authenticates_with_its_scopes(catalog: Catalog) -> None:
    made = await catalog.create_key("laptop", {Scope.SPEAK, Scope.CLONE})
    key = await catalog.authenticate(made.token)
    assert (key.id, key.name, key.scopes) == (made.id, "laptop", {Scope.SPEAK, Scope.CLONE})
    assert key.allows(Scope.SPEAK)
    assert not key.allows(Scope.FLEET)


async def test_an_admin_key_may_do_everything(catalog: Catalog) -> None:
    key = await catalog.authenticate((await catalog.create_key("root", {Scope.ADMIN})).token)
    assert all(key.allows(scope) for scope in Scope)


async def test_the_token_itself_is_stored_nowhere(catalog: Catalog, tmp_path: Path) -> None:
    secret = (await catalog.create_key("laptop", {Scope.SPEAK})).token.rpartition("_")[2]
    await catalog.aclose()
    assert not any(secret.encode() in file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize("wrong", ["", "cari", "cari__", "_", "Bearer x", "cari_é_é", "cari_" + "0" * 100_000])
async def test_what_is_no_token_is_refused(catalog: Catalog, wrong: str) -> None:
    await catalog.create_key("laptop", {Scope.SPEAK})
    with pytest.raises(AuthenticationFailed):
        await catalog.authenticate(wrong)


async def test_a_token_with_one_letter_changed_is_refused(catalog: Catalog) -> None:
    token = (await catalog.create_key("laptop", {Scope.SPEAK})).token
    for position in (0, 6, len(token) - 1):
        changed = token[:position] + ("0" if token[position] != "0" else "1") + token[position + 1 :]
        with pytest.raises(AuthenticationFailed):
            await catalog.authenticate(changed)


async def test_a_key_made_under_another_pepper_is_refused(catalog: Catalog, url: str) -> None:
    token = (await catalog.create_key("laptop", {Scope.SPEAK})).token
    other = Catalog(url, pepper=SecretStr("salt"))
    with pytest.raises(AuthenticationFailed):
        await other.authenticate(token)
    await other.aclose()


async def test_a_key_expires_at_its_moment(catalog: Catalog, clock: Clock) -> None:
    made = await catalog.create_key("visitor", {Scope.SPEAK}, lifetime=timedelta(hours=1))
    clock.advance(minutes=59)
    await catalog.authenticate(made.token)
    clock.advance(minutes=1)
    with pytest.raises(AuthenticationFailed, match="expired"):
        await catalog.authenticate(made.token)


async def test_a_revoked_key_is_refused_and_keeps_its_first_end(catalog: Catalog, clock: Clock) -> None:
    made = await catalog.create_key("laptop", {Scope.SPEAK})
    await catalog.revoke(made.id)
    revoked_at = clock()
    clock.advance(days=1)
    await catalog.revoke(made.id)
    with pytest.raises(AuthenticationFailed):
        await catalog.authenticate(made.token)
    assert [key.revoked_at for key in await catalog.keys()] == [revoked_at]


async def test_revoking_a_key_that_is_not_there_says_so(catalog: Catalog) -> None:
    with pytest.raises(InvalidRequest, match="'nope'"):
        await catalog.revoke("nope")


async def test_the_last_use_is_noted_at_most_once_a_minute(catalog: Catalog, clock: Clock) -> None:
    token = (await catalog.create_key("laptop", {Scope.SPEAK})).token
    first = clock()
    await catalog.authenticate(token)
    clock.advance(seconds=59)
    await catalog.authenticate(token)
    assert [key.last_used_at for key in await catalog.keys()] == [first]
    clock.advance(seconds=1)
    await catalog.authenticate(token)
    assert [key.last_used_at for key in await catalog.keys()] == [clock()]


async def test_dead_keys_are_forgotten_after_their_retention(catalog: Catalog, clock: Clock) -> None:
    revoked = await catalog.create_key("revoked", {Scope.SPEAK})
    await catalog.create_key("expired", {Scope.SPEAK}, lifetime=timedelta(days=2))
    living = await catalog.create_key("living", {Scope.SPEAK})
    await catalog.revoke(revoked.id)
    clock.advance(days=31)
    assert await catalog.delete_dead_keys(retention=timedelta(days=30)) == 1
    clock.advance(days=2)
    assert await catalog.delete_dead_keys(retention=timedelta(days=30)) == 1
    assert [key.id for key in await catalog.keys()] == [living.id]


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


async def test_a_database_without_tables_has_no_revision(url: str) -> None:
    catalog = Catalog(url, pepper=PEPPER)
    assert (await catalog.revision())[0] is None
    await catalog.aclose()


async def test_the_migrations_make_the_tables_that_the_code_declares(catalog: Catalog, tmp_path: Path) -> None:
    declared = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/declared.db")
    async with declared.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await declared.dispose()
    assert columns(tmp_path / "catalog.db") == columns(tmp_path / "declared.db")


def columns(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with sqlite3.connect(path) as connection:
        found = {table: connection.execute(f"PRAGMA table_info({table})").fetchall() for table in Base.metadata.tables}
    connection.close()
    return found


async def test_a_database_that_fails_is_an_error_of_ours_with_a_remedy(url: str) -> None:
    without_tables = Catalog(url, pepper=PEPPER)
    with pytest.raises(StoreUnavailable, match="CARILLON_DATABASE_URL"):
        await without_tables.authenticate("cari_x_y")
    await without_tables.aclose()


async def test_a_good_key_is_good_when_its_use_cannot_be_noted(catalog: Catalog, tmp_path: Path) -> None:
    token = (await catalog.create_key("laptop", {Scope.SPEAK})).token
    with sqlite3.connect(tmp_path / "catalog.db") as connection:
        connection.execute("CREATE TRIGGER no BEFORE UPDATE ON api_keys BEGIN SELECT RAISE(ABORT, 'no'); END")
    connection.close()
    assert (await catalog.authenticate(token)).name == "laptop"


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
