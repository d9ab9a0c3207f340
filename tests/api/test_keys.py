"""`/v1/keys`, and the commands that ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from app.client.http import ApiClient
from app.errors import AuthenticationFailed, InvalidRequest, NotFound, PermissionDenied
from app.platform.database import utc_now
from app.platform.tables import KeyRow
from app.speech.choices import Scope
from app.speech.protocol import Done
from tests.api.conftest import House, Library
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker
from tests.support.session_client import error_of, sessions_client

pytestmark = pytest.mark.anyio


@pytest.fixture
async def admin(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with house.holder_of(Scope.ADMIN) as http:
        yield http


async def test_a_key_that_is_made_speaks_until_it_is_ended(house: House, admin: httpx.AsyncClient) -> None:
    made = await admin.post("/v1/keys", json={"name": "laptop"})
    assert made.status_code == 201
    headers = {"Authorization": f"Bearer {made.json()['token']}"}
    assert (await house.http.get("/v1/models", headers=headers)).status_code == 200
    assert (await admin.delete(f"/v1/keys/{made.json()['id']}")).json() == {"id": made.json()["id"], "revoked": True}
    assert (await house.http.get("/v1/models", headers=headers)).status_code == 401


async def test_the_list_tells_scopes_and_no_token(admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/v1/keys", json={"name": "laptop", "scopes": ["clone", "narrate"], "days": 7})).json()
    answer = await admin.get("/v1/keys")
    (key,) = [key for key in answer.json()["data"] if key["id"] == made["id"]]
    assert (key["name"], sorted(key["scopes"]), key["revoked_at"]) == ("laptop", ["clone", "narrate"], None)
    lifetime = datetime.fromisoformat(key["expires_at"]) - datetime.fromisoformat(key["created_at"])
    assert lifetime == timedelta(days=7)
    assert made["token"] not in answer.text


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"name": ""},
        {"name": " "},
        {"name": "a\nb"},
        {"name": "a" * 101},
        {"name": "a", "scopes": []},
        {"name": "a", "scopes": ["sing"]},
        {"name": "a", "days": 0},
        {"name": "a", "days": 1e9},
        {"name": "a", "token": "cari_1_1"},
    ],
)
async def test_a_wish_that_cannot_be_honoured_makes_no_key(admin: httpx.AsyncClient, wish: dict[str, Any]) -> None:
    before = (await admin.get("/v1/keys")).json()
    answer = await admin.post("/v1/keys", json=wish)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request")
    after = (await admin.get("/v1/keys")).json()
    assert [key["id"] for key in after["data"]] == [key["id"] for key in before["data"]]


async def test_a_key_that_is_not_there_cannot_be_ended(admin: httpx.AsyncClient) -> None:
    answer = await admin.delete("/v1/keys/nope")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope not in (Scope.ADMIN, Scope.MANAGE)])
async def test_only_who_manages_keys_sees_or_makes_them(house: House, scope: Scope) -> None:
    async with house.holder_of(scope) as http:
        for answer in (
            await http.get("/v1/keys"),
            await http.post("/v1/keys", json={"name": "mine", "scopes": ["admin"]}),
            await http.post("/v1/keys/x/rotate"),
            await http.delete("/v1/keys/x"),
        ):
            assert answer.status_code == 403


async def test_a_project_manages_its_own_keys_and_none_that_may_do_more(house: House) -> None:
    admin = await house.catalog.keys.create("operator", {Scope.ADMIN})
    async with house.holder_of(Scope.MANAGE, Scope.SPEAK) as http:
        made = await http.post("/v1/keys", json={"name": "laptop", "scopes": ["speak"]})
        assert made.status_code == 201
        assert (await http.post(f"/v1/keys/{made.json()['id']}/rotate")).status_code == 201
        for answer in (
            await http.post("/v1/keys", json={"name": "x", "scopes": ["speak", "admin"]}),
            await http.post("/v1/keys", json={"name": "x", "project": "another"}),
            await http.post(f"/v1/keys/{admin.id}/rotate"),
            await http.delete(f"/v1/keys/{admin.id}"),
        ):
            assert (answer.status_code, error_of(answer)["code"]) == (403, "permission_denied")
    assert await house.catalog.keys.authenticate(admin.token)


async def test_a_rotated_key_has_two_tokens_until_the_overlap_is_over(house: House, admin: httpx.AsyncClient) -> None:
    first = (await admin.post("/v1/keys", json={"name": "laptop"})).json()
    second = (await admin.post(f"/v1/keys/{first['id']}/rotate")).json()
    assert datetime.fromisoformat(second["previous_until"]) > datetime.now(UTC) + timedelta(hours=23)
    for token in (first["token"], second["token"]):
        assert (await house.catalog.keys.authenticate(token)).id == first["id"]
    third = (await admin.post(f"/v1/keys/{first['id']}/rotate", json={"overlap_hours": 0})).json()
    assert await house.catalog.keys.authenticate(third["token"])
    for token in (first["token"], second["token"]):
        with pytest.raises(AuthenticationFailed):
            await house.catalog.keys.authenticate(token)


async def test_a_revoked_keys_sockets_are_closed_with_the_reason(
    house: House, worker: FakeWorker, admin: httpx.AsyncClient
) -> None:
    made = (await admin.post("/v1/keys", json={"name": "laptop"})).json()
    async with sessions_client(house.sessions_url, made["token"]) as client:
        await client.say("a", "Hello there.", pace="unpaced")
        await client.until(Done, "a")
        await admin.delete(f"/v1/keys/{made['id']}")
        await client.socket.wait_closed()
    assert (client.socket.close_code, made["id"] in str(client.socket.close_reason)) == (1008, True)


async def test_a_key_that_expires_loses_its_sockets_too(house: House, worker: FakeWorker) -> None:
    key = await house.catalog.keys.create("laptop", {Scope.SPEAK}, lifetime=timedelta(days=1))
    async with sessions_client(house.sessions_url, key.token) as client:
        await client.say("a", "Hello there.", pace="unpaced")
        await client.until(Done, "a")
        async with house.catalog.database.writing() as connection:
            await connection.execute(update(KeyRow).where(KeyRow.id == key.id).values(expires_at=utc_now()))
        await client.socket.wait_closed()
    assert (client.socket.close_code, "has expired" in str(client.socket.close_reason)) == (1008, True)


async def test_a_revoked_keys_event_streams_end_and_no_others(library: Library) -> None:
    narration = await library.queued()
    path, http = f"/v1/narrations/{narration['id']}/events", library.house.http
    ending, staying = [await library.house.catalog.keys.create(name, {Scope.NARRATE}) for name in ("a", "b")]

    async def events(token: str, begun: asyncio.Event) -> int:
        async with http.stream("GET", path, headers={"Authorization": f"Bearer {token}"}) as stream:
            assert stream.status_code == 200
            lines = 0
            async for _ in stream.aiter_lines():
                begun.set()
                lines += 1
            return lines

    heard = [asyncio.Event(), asyncio.Event()]
    streams = [
        asyncio.create_task(events(key.token, begun)) for key, begun in zip((ending, staying), heard, strict=True)
    ]
    for begun in heard:
        await begun.wait()
    async with library.house.holder_of(Scope.ADMIN) as admin:
        await admin.delete(f"/v1/keys/{ending.id}")
        assert await asyncio.wait_for(streams[0], HANG_S)
        assert not streams[1].done()
        await library.house.catalog.narrations.request_cancel(narration["id"])
        assert await asyncio.wait_for(streams[1], HANG_S)
    again = await http.get(path, headers={"Authorization": f"Bearer {ending.token}"})
    assert again.status_code == 401


async def test_a_key_that_was_revoked_elsewhere_starts_no_session_more(house: House, worker: FakeWorker) -> None:
    key = await house.catalog.keys.create("laptop", {Scope.SPEAK})
    async with sessions_client(house.sessions_url, key.token) as client:
        await house.catalog.keys.revoke(key.id)
        await client.send("start", "a", voice="slt")
        assert (await client.refusal("a")).code == "authentication_failed"


async def test_the_commands_manage_the_keys_of_a_fleet_elsewhere(house: House) -> None:
    admin = (await house.catalog.keys.create("admin", {Scope.ADMIN})).token

    def manage() -> list[str]:
        with ApiClient(house.url, admin) as client:
            assert client.is_reachable()
            token = client.keys.create("laptop", [Scope.SPEAK], 1.5)
            (made,) = [key for key in client.keys.all() if key["name"] == "laptop"]
            client.keys.revoke(made["id"])
            with pytest.raises(NotFound):
                client.keys.revoke("../nope")
            with pytest.raises(InvalidRequest, match="printable"):
                client.keys.create("", [Scope.SPEAK], None)
            return [token, made["id"]]

    token, key_id = await asyncio.to_thread(manage)
    assert token.split("_")[1] == key_id
    with pytest.raises(AuthenticationFailed):
        await house.catalog.keys.authenticate(token)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (None, "asks for a key, and none was given"),
        ("wrong", "does not take the key that was given (it is no whole key"),
        ("cari_abc_0123", "does not take the key cari_abc_…"),
    ],
)
async def test_a_key_that_is_missing_or_wrong_is_named(house: House, key: str | None, told: str) -> None:
    def ask() -> None:
        with ApiClient(house.url, key) as client:
            client.voices.speakable()

    with pytest.raises(AuthenticationFailed) as refused:
        await asyncio.to_thread(ask)
    assert f"the fleet at {house.url} {told}" in refused.value.message
    assert "0123" not in refused.value.message


async def test_a_key_that_lacks_a_scope_is_told_which(house: House) -> None:
    def ask() -> None:
        with ApiClient(house.url, house.key) as client:
            client.keys.all()

    with pytest.raises(PermissionDenied, match="lacks the scope 'manage'; it has: fleet, speak"):
        await asyncio.to_thread(ask)
