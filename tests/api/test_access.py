"""Who may speak, and what the front door shows to those who run it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest

from app.errors import StoreUnavailable
from app.platform.api_keys import ApiKey
from app.platform.key_cache import KeyCache
from tests.api.conftest import House, Library
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker
from tests.support.session_client import SPEECH, error_of, speak

pytestmark = pytest.mark.anyio


# Who may.


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer"}, {"Authorization": "Bearer cari_x_y"}, {"Authorization": "Basic eA=="}],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/audio/voices", "/v1/fleet"])
async def test_without_a_good_key_nothing_is_told(house: House, headers: dict[str, str], path: str) -> None:
    async with httpx.AsyncClient(base_url=house.url, headers=headers, trust_env=False) as stranger:
        answer = await stranger.get(path)
    assert answer.status_code == 401
    assert error_of(answer)["type"] == "authentication_error"
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_database_that_fails_is_503_with_a_time_to_come_again(house: House) -> None:
    async with house.catalog.database.writing() as connection:
        await connection.exec_driver_sql("DROP TABLE api_keys")
    answer = await house.http.get("/v1/models")
    assert (answer.status_code, error_of(answer)["code"]) == (503, "store_unavailable")
    assert answer.headers["retry-after"]
    assert "carillon doctor" in error_of(answer)["message"]


class FirstLookFails(KeyCache):
    """Of a catalogue that is away at the first look, and back at the second."""

    away = True

    async def authenticate(self, token: str) -> ApiKey:
        if self.away:
            self.away = False
            raise StoreUnavailable("the catalogue does not answer")
        return await super().authenticate(token)


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}])
async def test_a_caller_whose_key_cannot_be_looked_up_at_first_does_not_pass_as_nobody(
    library: Library, headers: dict[str, str]
) -> None:
    state = library.house.server.config.app.state  # type: ignore[union-attr]
    state.services = replace(state.services, keys=FirstLookFails(library.house.catalog.keys))
    answer = await library.http.post("/v1/narrations", json={"voice": "slt", "text": "Hello."}, headers=headers)
    assert (answer.status_code, error_of(answer)["code"]) == (503, "store_unavailable")
    assert not (await library.http.get("/v1/narrations")).json()["data"]


async def test_health_is_told_whatever_key_is_sent_while_the_catalogue_is_away(house: House) -> None:
    async with house.catalog.database.writing() as connection:
        await connection.exec_driver_sql("DROP TABLE api_keys")
    for path in ("/healthz", "/metrics"):
        assert (await house.http.get(path)).status_code == 200
    assert (await house.http.get("/readyz")).json()["status"] == "waiting for a worker"


async def test_a_key_without_the_scope_is_refused_with_the_scopes_it_has(house: House) -> None:
    key = await house.catalog.keys.create("narrow", {"clone"})  # type: ignore[arg-type]
    answer = await house.http.get("/v1/models", headers={"Authorization": f"Bearer {key.token}"})
    assert answer.status_code == 403
    assert "'speak'" in error_of(answer)["message"] and "clone" in error_of(answer)["message"]


async def test_what_is_not_there_is_said_in_the_same_shape(house: House) -> None:
    assert error_of(await house.http.get("/v1/nothing"))["code"] == "not_found"
    assert error_of(await house.http.delete(SPEECH))["code"] == "method_not_allowed"


# What operators see.


async def test_the_metrics_hold_the_ledger_and_the_fleet(house: House, worker: FakeWorker) -> None:
    await speak(house)
    page = (await house.http.get("/metrics")).text
    for part in ("queue", "route", "prefill", "decode", "first_audio"):
        assert f'carillon_latency_seconds_count{{edge="openai",part="{part}"}} 1.0' in page
    assert 'carillon_sessions_total{edge="openai",outcome="done"} 1.0' in page
    assert 'carillon_sessions_open{edge="openai"} 0.0' in page
    assert 'carillon_fleet_workers{model="standin",state="active"} 1.0' in page


async def test_it_is_ready_once_a_worker_is_active(house: House) -> None:
    assert (await house.http.get("/healthz")).status_code == 200
    assert (await house.http.get("/readyz")).status_code == 503
    async with house.worker():
        assert (await house.http.get("/readyz")).status_code == 200


async def test_while_no_worker_speaks_it_says_what_each_is_busy_with(house: House) -> None:
    async with house.worker() as worker:
        await worker.restart("loading the model")
        async with asyncio.timeout(HANG_S):
            while not (answer := (await house.http.get("/readyz")).json()).get("starting"):
                await asyncio.sleep(0.01)
        spoken = await house.http.post("/v1/audio/speech", json={"model": "standin", "voice": "slt", "input": "Hello."})
    assert answer == {"status": "waiting for a worker", "workers": 0, "starting": {"w1": "loading the model"}}
    assert spoken.status_code == 503
    assert "w1 is starting (loading the model)" in spoken.text
    assert int(spoken.headers["retry-after"]) > 0


async def test_a_model_whose_last_worker_was_lost_a_moment_ago_is_waited_for_and_not_unknown(house: House) -> None:
    async with house.worker(), asyncio.timeout(HANG_S):
        while (await house.http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(HANG_S):
        while "w1" in (await house.http.get("/v1/fleet")).text:
            await asyncio.sleep(0.01)
    spoken = await house.http.post("/v1/audio/speech", json={"model": "standin", "voice": "slt", "input": "Hello."})
    assert spoken.status_code == 503
    assert "none has started again yet" in spoken.text


async def test_the_fleet_page_shows_each_worker(house: House, worker: FakeWorker) -> None:
    (shown,) = (await house.http.get("/v1/fleet")).json()["workers"]
    assert (shown["id"], shown["state"], shown["capacity"], shown["inflight"]) == ("w1", "active", 4, 0)
