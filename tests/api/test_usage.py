"""Who used how much: every utterance and job once, aborted ones too, and each project its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from app.platform.database import utc_now
from app.platform.settings import PriceSettings
from app.platform.usage import UsageRecord
from app.speech.choices import Scope
from app.speech.recipe import CloneConfig
from app.voices.models import CloneKind, CloneState
from tests.api.conftest import House, Library, OpenHouse
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker
from tests.support.session_client import sessions_client, speak

pytestmark = pytest.mark.anyio


@pytest.fixture
async def manager(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with house.holder_of(Scope.MANAGE) as http:
        yield http


async def used(house: House, manager: httpx.AsyncClient, by: str = "") -> dict[str, Any]:
    """`GET /v1/usage` of today, with all that was recorded until now."""
    await house.server.config.app.state.services.metering.recorder.write()  # type: ignore[union-attr]
    answer = await manager.get("/v1/usage", params={"by": by})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_each_call_is_counted_by_day_key_and_voice(
    house: House, worker: FakeWorker, manager: httpx.AsyncClient
) -> None:
    for text in ("Hello.", "Good morning."):
        assert (await speak(house, text)).status_code == 200
    [row] = (await used(house, manager, "day,project,key,voice"))["data"]
    today, key_id = utc_now().date().isoformat(), house.key.split("_")[1]
    assert (row["day"], row["project"], row["key"], row["voice"]) == (today, "default", key_id, "slt")
    assert (row["utterances"], row["characters"]) == (2, len("Hello.Good morning."))
    assert row["audio_s"] > 0


async def test_a_call_that_its_client_breaks_off_is_counted_too(
    house: House, worker: FakeWorker, manager: httpx.AsyncClient
) -> None:
    sockets = house.server.config.app.state.services.sockets  # type: ignore[union-attr]
    before = len(sockets)
    async with sessions_client(house.sessions_url, house.key) as client:
        await client.send("start", "a", voice="slt")
        await client.send("text", "a", text="It was a long night. ")
        await client.send("flush", "a")
        await client.until_frames("a", 1)
    async with asyncio.timeout(HANG_S):
        while len(sockets) > before:
            await asyncio.sleep(0.01)
    total = (await used(house, manager))["total"]
    assert (total["utterances"], total["characters"], total["audio_s"] > 0) == (1, len("It was a long night. "), True)


async def test_what_was_recorded_twice_counts_once(house: House, manager: httpx.AsyncClient) -> None:
    record = UsageRecord("ses-1", utc_now(), "default", None, "slt", "speech", characters=6, audio_s=1.5)
    for grown in (record, record, replace(record, characters=9, audio_s=2.5)):
        await house.catalog.usage.write([grown])
    total = (await used(house, manager))["total"]
    assert (total["utterances"], total["characters"], total["audio_s"]) == (1, 9, 2.5)


async def test_a_clone_job_counts_once_with_the_time_it_took(house: House, manager: httpx.AsyncClient) -> None:
    voice = await house.catalog.voices.create("Mary", model="standin")
    job = await house.catalog.jobs.create(voice.id, kind=CloneKind.CLONE, config=CloneConfig(), key_id="k1")
    for _ in range(2):  # the first worker gives it back
        taken = await house.catalog.jobs.claim(job.id)
        assert taken
        await house.catalog.jobs.give_back(taken)
    taken = await house.catalog.jobs.claim(job.id)
    assert taken
    await house.catalog.jobs.finish(taken, CloneState.CANCELLED)
    [row] = (await used(house, manager, "key,voice"))["data"]
    assert (row["key"], row["voice"], row["jobs"], row["gpu_s"] > 0) == ("k1", voice.id, 1, True)


async def test_a_narration_counts_what_it_has_rendered_also_when_it_is_deleted(library: Library) -> None:
    queued = await library.queued()
    narration = await library.planned(queued["id"])
    step = await library.steps.claim(narration.id)
    assert step
    script = narration.chapters[0]
    progress = script.model_copy(update={"rendered_s": 12.0, "rendered_chars": 100, "busy_s": 6.0})
    for _ in range(2):
        await library.steps.report(step, progress)
    await library.steps.give_back(step)
    await library.http.post(f"/v1/narrations/{narration.id}/cancel")
    await library.http.delete(f"/v1/narrations/{narration.id}")
    async with library.house.holder_of(Scope.MANAGE) as manager:
        total = (await used(library.house, manager))["total"]
    assert (total["utterances"], total["characters"], total["audio_s"], total["gpu_s"]) == (0, 100, 12.0, 6.0)


async def test_a_project_sees_its_own_use_and_an_operator_all(house: House, worker: FakeWorker) -> None:
    other = await house.catalog.projects.create("other")
    await speak(house, "Hello.")
    async with (
        house.holder_of(Scope.MANAGE, Scope.SPEAK, project=other.id) as theirs,
        house.holder_of(Scope.ADMIN) as operator,
    ):
        await theirs.post("/v1/audio/speech", json={"voice": "slt", "input": "Hi."})
        assert [row["characters"] for row in (await used(house, theirs, "project"))["data"]] == [len("Hi.")]
        by_project = (await used(house, operator, "project"))["data"]
    assert {row["project"]: row["characters"] for row in by_project} == {"default": 6, other.id: 3}


async def test_what_it_costs_is_reckoned_by_the_price_table(open_house: OpenHouse) -> None:
    prices = PriceSettings(usd_per_million_characters=15, usd_per_audio_hour=1)
    async with open_house(prices=prices) as house, house.worker(), house.holder_of(Scope.MANAGE) as manager:
        await speak(house, "Hello.")
        total = (await used(house, manager))["total"]
    assert total["cost_usd"] == pytest.approx(6 * 15e-6 + total["audio_s"] / 3600, abs=1e-6)


@pytest.mark.parametrize(
    "query",
    [
        {"by": "hour"},
        {"by": "day,day"},
        {"to": "0"},
        {"from": "2026-01-02", "to": "2026-01-01"},
        {"from": "2020-01-01"},
    ],
)
async def test_a_question_that_cannot_be_answered_is_refused(manager: httpx.AsyncClient, query: dict[str, str]) -> None:
    assert (await manager.get("/v1/usage", params=query)).status_code == 400
