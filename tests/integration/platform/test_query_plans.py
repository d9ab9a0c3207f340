"""A hundred thousand voices in the catalogue: what a session's start asks for is found by an index, in either database.

No time is measured: the databases say how they would look.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import event, text
from sqlalchemy.engine import Engine

from app.catalog import Catalog
from app.platform.projects import EVERYONE, Tenant
from app.speech.choices import Scope
from tests.support.real_services import postgres_program, running_postgres

pytestmark = pytest.mark.anyio

VOICES = 100_000
PROJECTS = 100
NUMBERS = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {VOICES}) "
FILLED = (
    "INSERT INTO projects (id, name, created_at) SELECT 'p' || i, 'project ' || i, '2026-01-01 00:00:00+00:00' "
    f"FROM n WHERE i <= {PROJECTS}",
    "INSERT INTO voices (id, name, model, language, description, prompt_name, version, consent_number, created_at, "
    "project_id) SELECT 'v' || i, 'voice ' || i, 'standin', 'en', '', 'v' || i, 1, '1', '2026-01-01 00:00:00+00:00', "
    f"'p' || (i % {PROJECTS} + 1) FROM n",
    "INSERT INTO api_keys (id, name, digest, scopes, created_at, project_id) SELECT 'k' || i, 'key ' || i, '', '[]', "
    "'2026-01-01 00:00:00+00:00', 'p1' FROM n WHERE i <= 10000",
    "INSERT INTO adapter_versions (voice_id, version, uri, sha256, rank, created_at, published_at) SELECT 'v' || i, 1, "
    "'s3://b/' || i, '{}', 16, '2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00' FROM n",
)
CASTS = {
    "'2026-01-01 00:00:00+00:00'": "CAST('2026-01-01 00:00:00+00:00' AS timestamptz)",
    "'{}'": "CAST('{}' AS json)",
}

WHOLE_TABLE = re.compile(r"(Seq Scan on|SCAN) (voices|adapter_versions|api_keys)\b")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('voices') / 'carillon.db'}"
        return
    if not postgres_program("postgres"):
        pytest.skip("PostgreSQL is not here: apt-get install postgresql")
    with running_postgres() as running, running.database() as name:
        yield running.url(name)


@pytest.fixture
async def catalog(url: str) -> AsyncIterator[Catalog]:
    """With all the voices, which are made once."""
    catalog = Catalog(url, pepper=SecretStr("pepper"))
    await catalog.migrate()
    async with catalog.database.writing() as connection:
        if not (await connection.execute(text("SELECT count(*) FROM voices"))).scalar_one():
            for statement in FILLED:
                await connection.execute(text(counted(statement, casts=CASTS if "postgresql" in url else {})))
            await connection.execute(text("ANALYZE"))
    yield catalog
    await catalog.aclose()


def counted(statement: str, *, casts: Mapping[str, str]) -> str:
    """An INSERT … SELECT with the numbers that it is made of, and its constants as a database wants them."""
    for told, cast in casts.items():
        statement = statement.replace(told, cast)
    into, select, chosen = statement.partition(" SELECT ")
    return f"{into} {NUMBERS}{select}{chosen}".replace(":00", r"\:00")


@contextlib.contextmanager
def asked() -> Iterator[list[tuple[str, Any]]]:
    """What is asked of any database meanwhile."""
    statements: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        statements.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def looks_through(catalog: Catalog, statements: list[tuple[str, Any]]) -> list[str]:
    """The steps in the plans of these statements that read a whole table of voices, adapters or keys."""
    found: list[str] = []
    async with catalog.database.reading() as connection:
        how = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
        for statement, parameters in statements:
            if statement.startswith("SELECT"):
                plan = await connection.exec_driver_sql(f"{how} {statement}", parameters)
                found += [step for row in plan if WHOLE_TABLE.search(step := str(row[-1]))]
    return found


@pytest.mark.parametrize("tenant", [Tenant("p7"), EVERYONE], ids=["a project", "an operator"])
@pytest.mark.parametrize("name", ["voice 50006", "v50006", "nobody"])
async def test_a_voice_is_found_by_name_or_id_without_looking_through_all(
    catalog: Catalog, tenant: Tenant, name: str
) -> None:
    with asked() as statements:
        found = await catalog.voices.seen_by(tenant).spoken_as({name}, models=["standin"])
    assert [voice.id for voice in found] == (["v50006"] if name != "nobody" else [])
    assert statements
    assert await looks_through(catalog, statements) == []


async def test_a_key_is_found_without_looking_through_all(catalog: Catalog) -> None:
    key = await catalog.keys.create("one", {Scope.SPEAK})
    with asked() as statements:
        await catalog.keys.authenticate(key.token)
    assert await looks_through(catalog, statements) == []


async def test_the_test_would_see_a_whole_table_looked_through(catalog: Catalog) -> None:
    with asked() as statements:
        await catalog.voices.published(limit=1)
    assert await looks_through(catalog, statements)
