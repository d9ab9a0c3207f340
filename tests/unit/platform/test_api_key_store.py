"""API keys on a real SQLite file: a key proves itself, ends, and is forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.catalog import Catalog
from app.errors import AuthenticationFailed, InvalidRequest
from app.speech.choices import Scope
from tests.support.wall_clock import WallClock

pytestmark = pytest.mark.anyio

PEPPER = SecretStr("pepper")
DAY_S = 86_400.0


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/catalog.db"


@pytest.fixture
async def catalog(url: str, clock: WallClock) -> AsyncIterator[Catalog]:
    catalog = Catalog(url, pepper=PEPPER, now=clock)
    await catalog.migrate()
    yield catalog
    await catalog.aclose()


async def test_a_new_key_authenticates_with_its_scopes(catalog: Catalog) -> None:
    made = await catalog.keys.create("laptop", {Scope.SPEAK, Scope.CLONE})
    key = await catalog.keys.authenticate(made.token)
    assert (key.id, key.name, key.scopes) == (made.id, "laptop", {Scope.SPEAK, Scope.CLONE})
    assert key.allows(Scope.SPEAK)
    assert not key.allows(Scope.FLEET)


async def test_an_admin_key_may_do_everything(catalog: Catalog) -> None:
    key = await catalog.keys.authenticate((await catalog.keys.create("root", {Scope.ADMIN})).token)
    assert all(key.allows(scope) for scope in Scope)


async def test_the_token_itself_is_stored_nowhere(catalog: Catalog, tmp_path: Path) -> None:
    secret = (await catalog.keys.create("laptop", {Scope.SPEAK})).token.rpartition("_")[2]
    await catalog.aclose()
    assert not any(secret.encode() in file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize("wrong", ["", "cari", "cari__", "_", "Bearer x", "cari_é_é", "cari_" + "0" * 100_000])
async def test_what_is_no_token_is_refused(catalog: Catalog, wrong: str) -> None:
    await catalog.keys.create("laptop", {Scope.SPEAK})
    with pytest.raises(AuthenticationFailed):
        await catalog.keys.authenticate(wrong)


async def test_a_token_with_one_letter_changed_is_refused(catalog: Catalog) -> None:
    token = (await catalog.keys.create("laptop", {Scope.SPEAK})).token
    for position in (0, 6, len(token) - 1):
        changed = token[:position] + ("0" if token[position] != "0" else "1") + token[position + 1 :]
        with pytest.raises(AuthenticationFailed):
            await catalog.keys.authenticate(changed)


async def test_a_key_made_under_another_pepper_is_refused(catalog: Catalog, url: str) -> None:
    token = (await catalog.keys.create("laptop", {Scope.SPEAK})).token
    other = Catalog(url, pepper=SecretStr("salt"))
    with pytest.raises(AuthenticationFailed):
        await other.keys.authenticate(token)
    await other.aclose()


async def test_a_key_expires_at_its_moment(catalog: Catalog, clock: WallClock) -> None:
    made = await catalog.keys.create("visitor", {Scope.SPEAK}, lifetime=timedelta(hours=1))
    clock.advance(59 * 60)
    await catalog.keys.authenticate(made.token)
    clock.advance(60)
    with pytest.raises(AuthenticationFailed, match="expired"):
        await catalog.keys.authenticate(made.token)


async def test_a_revoked_key_is_refused_and_keeps_its_first_end(catalog: Catalog, clock: WallClock) -> None:
    made = await catalog.keys.create("laptop", {Scope.SPEAK})
    await catalog.keys.revoke(made.id)
    revoked_at = clock()
    clock.advance(DAY_S)
    await catalog.keys.revoke(made.id)
    with pytest.raises(AuthenticationFailed):
        await catalog.keys.authenticate(made.token)
    assert [key.revoked_at for key in await catalog.keys.all()] == [revoked_at]


async def test_revoking_a_key_that_is_not_there_says_so(catalog: Catalog) -> None:
    with pytest.raises(InvalidRequest, match="'nope'"):
        await catalog.keys.revoke("nope")


async def test_the_last_use_is_noted_at_most_once_a_minute(catalog: Catalog, clock: WallClock) -> None:
    token = (await catalog.keys.create("laptop", {Scope.SPEAK})).token
    first = clock()
    await catalog.keys.authenticate(token)
    clock.advance(59)
    await catalog.keys.authenticate(token)
    assert [key.last_used_at for key in await catalog.keys.all()] == [first]
    clock.advance(1)
    await catalog.keys.authenticate(token)
    assert [key.last_used_at for key in await catalog.keys.all()] == [clock()]


async def test_dead_keys_are_forgotten_after_their_retention(catalog: Catalog, clock: WallClock) -> None:
    revoked = await catalog.keys.create("revoked", {Scope.SPEAK})
    await catalog.keys.create("expired", {Scope.SPEAK}, lifetime=timedelta(days=2))
    living = await catalog.keys.create("living", {Scope.SPEAK})
    await catalog.keys.revoke(revoked.id)
    clock.advance(31 * DAY_S)
    assert await catalog.keys.delete_dead(retention=timedelta(days=30)) == 1
    clock.advance(2 * DAY_S)
    assert await catalog.keys.delete_dead(retention=timedelta(days=30)) == 1
    assert [key.id for key in await catalog.keys.all()] == [living.id]


async def test_a_good_key_is_good_when_its_use_cannot_be_noted(catalog: Catalog, tmp_path: Path) -> None:
    token = (await catalog.keys.create("laptop", {Scope.SPEAK})).token
    with sqlite3.connect(tmp_path / "catalog.db") as connection:
        connection.execute("CREATE TRIGGER no BEFORE UPDATE ON api_keys BEGIN SELECT RAISE(ABORT, 'no'); END")
    connection.close()
    assert (await catalog.keys.authenticate(token)).name == "laptop"
