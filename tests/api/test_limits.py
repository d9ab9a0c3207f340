"""What projects and keys may do at most, told in headers and refused with 429, counted in a real Valkey."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest

from app.platform.database import utc_now
from app.platform.limit_values import Limits
from app.platform.settings import LimitSettings, PriceSettings
from app.platform.usage import UsageRecord, UsageStore
from app.speech.choices import Scope
from app.speech.protocol import Done, Ready
from app.speech.recipe import CloneConfig
from app.voices.models import CloneKind
from tests.api.conftest import House, Library, OpenHouse
from tests.support.deadlines import HANG_S
from tests.support.session_client import SPEECH, error_of, sessions_client

pytestmark = pytest.mark.anyio

SCOPES = (Scope.SPEAK, Scope.CLONE, Scope.NARRATE, Scope.MANAGE)


@asynccontextmanager
async def limited(house: House, **limits: object) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a project of its own, with these limits."""
    project = await house.catalog.projects.create("limited", Limits.model_validate(limits))
    async with house.holder_of(*SCOPES, project=project.id) as http:
        yield http


def token(http: httpx.AsyncClient) -> str:
    return http.headers["authorization"].removeprefix("Bearer ")


async def speak(http: httpx.AsyncClient, text: str) -> httpx.Response:
    return await http.post(SPEECH, json={"voice": "slt", "input": text, "response_format": "pcm"})


async def test_without_limits_nothing_is_counted_or_told(house: House) -> None:
    answer = await house.http.get("/v1/models")
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


async def test_requests_are_told_and_then_refused_with_when_to_come_again(house: House) -> None:
    async with limited(house, requests_per_minute=2) as http:
        first = await http.get("/v1/models")
        assert (first.headers["x-ratelimit-limit-requests"], first.headers["x-ratelimit-remaining-requests"]) == (
            "2",
            "1",
        )
        assert (await http.get("/v1/audio/voices")).status_code == 200
        refused = await http.get("/v1/models")
    assert (refused.status_code, error_of(refused)["code"], error_of(refused)["type"]) == (
        429,
        "rate_limited",
        "rate_limit_error",
    )
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert (await house.http.get("/v1/models")).status_code == 200, "another project's limits are its own"


async def test_a_keys_own_limit_is_beside_its_projects(house: House) -> None:
    narrow = await house.catalog.keys.create("narrow", {Scope.SPEAK}, limits=Limits(requests_per_minute=1))
    headers = {"Authorization": f"Bearer {narrow.token}"}
    codes = [(await house.http.get("/v1/models", headers=headers)).status_code for _ in range(2)]
    assert codes == [200, 429]
    assert (await house.http.get("/v1/models")).status_code == 200


async def test_characters_are_limited_in_calls_and_in_sessions(house: House) -> None:
    async with house.worker(), limited(house, characters_per_minute=40) as http:
        spoken = await speak(http, "Twenty characters. ..")
        assert (spoken.status_code, spoken.headers["x-ratelimit-remaining-characters"]) == (200, "19")
        refused = await speak(http, "Twenty characters. ..")
        assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limited")
        async with sessions_client(house.sessions_url, token(http)) as client:
            await client.say("a", "Twenty characters. ..")
            error = await client.refusal("a")
    assert (error.code, error.retryable) == ("rate_limited", True)
    assert error.retry_after_s


async def test_a_project_has_so_many_sessions_at_once_and_room_again_when_one_ends(house: House) -> None:
    async with house.worker(capacity=4), limited(house, sessions=1) as http:
        async with sessions_client(house.sessions_url, token(http)) as client:
            await client.send("start", "a", voice="slt")
            await client.until(Ready, "a")
            await client.send("start", "b", voice="slt")
            assert (await client.refusal("b")).code == "rate_limited"
            assert (await speak(http, "Hello.")).status_code == 429
            await client.send("eos", "a")
            await client.until(Done, "a")
        async with asyncio.timeout(HANG_S):
            while (await speak(http, "Hello.")).status_code != 200:
                pass


async def test_a_reserve_keeps_one_project_from_taking_every_place(open_house: OpenHouse) -> None:
    async with (
        open_house(limits=LimitSettings(reserve=0.5)) as house,
        house.worker(capacity=2),
        sessions_client(house.sessions_url, house.key) as client,
    ):
        await client.send("start", "a", voice="slt")
        await client.until(Ready, "a")
        await client.send("start", "b", voice="slt")
        assert (await client.refusal("b")).code == "rate_limited"
        async with limited(house) as other:
            assert (await speak(other, "Hello.")).status_code == 200


async def test_voices_jobs_and_bytes_have_limits_of_their_own(library: Library) -> None:
    async with limited(library.house, voices=1, queued_jobs=1, stored_bytes=30) as http:
        assert (await http.post("/v1/voices", json={"name": "Mary"})).status_code == 201
        refused = await http.post("/v1/voices", json={"name": "Ann"})
        assert (refused.status_code, error_of(refused)["code"]) == (429, "quota_exceeded")
        text = {"voice": "slt", "text": "Twenty-one characters"}
        assert (await http.post("/v1/narrations", json=text | {"text": text["text"] * 2})).status_code == 429
        assert (await http.post("/v1/narrations", json=text)).status_code == 202
        refused = await http.post("/v1/narrations", json=text)
        assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limited")
        assert refused.headers["retry-after"] == "60"


async def test_gpu_seconds_are_of_jobs_and_stop_no_session(library: Library) -> None:
    house = library.house
    async with limited(house, gpu_s_per_month=60) as http:
        text = {"voice": "slt", "text": "Twenty-one characters"}
        assert (await http.post("/v1/narrations", json=text)).status_code == 202
        [project] = [one for one in await house.catalog.projects.all() if one.name == "limited"]
        used = UsageRecord("nar-1", utc_now(), project.id, None, "slt", "narration", 10, audio_s=100.0, gpu_s=60.0)
        await house.catalog.usage.write([used])
        refused = await http.post("/v1/narrations", json=text)
        assert (refused.status_code, error_of(refused)["code"]) == (429, "quota_exceeded")
        assert "60 GPU seconds of its 60" in error_of(refused)["message"]
        assert (await speak(http, "Hello.")).status_code == 200


async def test_a_job_that_runs_has_taken_its_time_until_now(house: House) -> None:
    voice = await house.catalog.voices.create("Mary", model="standin")
    job = await house.catalog.jobs.create(voice.id, kind=CloneKind.CLONE, config=CloneConfig())
    assert await house.catalog.jobs.claim(job.id)
    later = UsageStore(house.catalog.database, now=lambda: utc_now() + timedelta(hours=1))
    assert await later.gpu_s_this_month() == pytest.approx(3600, abs=HANG_S)


async def test_a_budget_that_is_spent_stops_the_project_and_no_other(open_house: OpenHouse) -> None:
    prices = PriceSettings(usd_per_million_characters=1e6)
    async with open_house(prices=prices) as house, house.worker(), limited(house, usd_per_month=10) as http:
        assert (await speak(http, "Twelve chars")).status_code == 200
        services = house.server.config.app.state.services  # type: ignore[union-attr]
        await services.metering.recorder.write()
        services.metering.spent.clear()
        refused = await speak(http, "Hello.")
        assert (refused.status_code, error_of(refused)["code"]) == (429, "quota_exceeded")
        assert (await http.get("/v1/usage")).json()["budget"] == {
            "usd_per_month": 10,
            "spent_usd": 12,
            "state": "spent",
        }
        assert (await speak(house.http, "Hello.")).status_code == 200


async def test_a_budget_that_is_nearly_spent_warns_and_speaks_on(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    prices = PriceSettings(usd_per_million_characters=1e6, warn_at=0.5)
    async with open_house(prices=prices) as house, house.worker(), limited(house, usd_per_month=20) as http:
        assert (await speak(http, "Twelve chars")).status_code == 200
        services = house.server.config.app.state.services  # type: ignore[union-attr]
        await services.metering.recorder.write()
        services.metering.spent.clear()
        assert (await http.get("/v1/usage")).json()["budget"]["state"] == "warned"
        with caplog.at_level(logging.WARNING):
            assert (await speak(http, "Hello.")).status_code == 200
    [warning] = [record for record in caplog.records if record.message == "budget nearly spent"]
    assert (warning.usd, warning.budget_usd) == (12, 20)  # type: ignore[attr-defined]


async def test_operators_change_a_projects_limits(house: House) -> None:
    async with house.holder_of(Scope.ADMIN) as operator, limited(house, requests_per_minute=1) as http:
        assert [(await http.get("/v1/models")).status_code for _ in range(2)] == [200, 429]
        changed = await operator.put("/v1/projects/limited/limits", json={"limits": {"requests_per_minute": None}})
        assert changed.json()["limits"]["requests_per_minute"] is None
        house.server.config.app.state.services.keys.forget(token(http).split("_")[1])  # type: ignore[union-attr]
        assert (await http.get("/v1/models")).status_code == 200
