"""Clone jobs over HTTP: what is asked for before one is queued, how its progress is told, how it is stopped."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from app.platform.database import utc_now
from app.speech.choices import Scope
from app.voices.models import AudioFacts, CloneJob, CloneState, Consent, DataReport, TrainProgress
from tests.api.conftest import House
from tests.support.fake_worker import STAND_IN, FakeWorker
from tests.support.followed_job import followed

pytestmark = pytest.mark.anyio


@pytest.fixture
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with house.holder_of(Scope.CLONE) as http:
        yield http


@pytest.fixture
async def voice_id(house: House) -> str:
    """A voice with one recording and consent."""
    voice = await house.catalog.voices.create("Mary", model="standin")
    facts = AudioFacts(container="wav", sample_rate_hz=24_000, channels=1, duration_s=5.0)
    await house.catalog.voices.add_sample(
        voice.id, sample_id="s", file_name="a.wav", size_bytes=1, facts=facts, transcript="hello", object_key="k"
    )
    await house.catalog.voices.add_consent(
        Consent(id="c", voice_id=voice.id, kind="operator", number=voice.consent_number, created_at=utc_now())
    )
    return voice.id


def error_of(answer: httpx.Response) -> dict[str, Any]:
    return answer.json()["error"]


@pytest.fixture
async def worker(house: House) -> AsyncIterator[FakeWorker]:
    async with house.worker() as worker:
        yield worker


async def queued(http: httpx.AsyncClient, voice_id: str, **fields: object) -> dict[str, Any]:
    answer = await http.post("/v1/clones", json={"voice": voice_id, **fields})
    assert answer.status_code == 202, answer.text
    return answer.json()


async def taken(house: House, job: dict[str, Any]) -> CloneJob:
    claimed = await house.catalog.jobs.claim(job["id"])
    assert claimed
    return claimed


async def test_a_job_is_queued_for_a_trainer(house: House, http: httpx.AsyncClient, voice_id: str, valkey: str) -> None:
    job = await queued(http, voice_id, overrides={"train": {"epochs": 2}})
    assert (job["state"], job["over"], job["config"]["train"]["epochs"]) == ("queued", False, 2)
    assert (await http.get(f"/v1/clones/{job['id']}")).json() == job
    assert [entry["id"] for entry in (await http.get("/v1/clones")).json()["data"]] == [job["id"]]
    async with Redis.from_url(valkey) as redis:
        [message] = await redis.lrange("train.standin", 0, -1)  # type: ignore[misc]
    assert json.loads(message)["headers"]["task"] == "carillon.clone"


async def test_a_voice_without_consent_is_not_trained(house: House, http: httpx.AsyncClient) -> None:
    voice = await house.catalog.voices.create("Ann", model="standin")
    answer = await http.post("/v1/clones", json={"voice": voice.id})
    assert (answer.status_code, error_of(answer)["code"]) == (409, "consent_missing")
    assert " ".join(voice.consent_number) in error_of(answer)["message"]


async def test_a_voice_without_recordings_is_not_trained(house: House, http: httpx.AsyncClient) -> None:
    voice = await house.catalog.voices.create("Ann", model="standin")
    await house.catalog.voices.add_consent(
        Consent(id="c2", voice_id=voice.id, kind="operator", number=voice.consent_number, created_at=utc_now())
    )
    answer = await http.post("/v1/clones", json={"voice": voice.id})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "recording_unfit")


async def test_a_polished_voice_is_not_made_of_recordings(
    house: House, http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    polished = (await http.post("/v1/voices/slt/polish", json={})).json()["voice_id"]
    answer = await http.post("/v1/clones", json={"voice": polished})
    assert (answer.status_code, error_of(answer)["code"]) == (409, "conflict")
    assert "POST /v1/voices/slt/polish" in error_of(answer)["message"]


async def test_a_voice_that_is_not_there_is_not_found(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/clones", json={"voice": "nope"})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("overrides", "param"),
    [
        ({"train": {"epochs": 6}}, "overrides.train.epochs"),
        ({"train": {"rang": 16}}, "overrides.train.rang"),
        ({"train": {"rank": 64}}, "overrides.train.rank"),
        ({"trian": {}}, "overrides"),
        ({"train": 5}, "overrides"),
        ({"gate": {"prompts": 0}}, "overrides.gate.prompts"),
    ],
)
async def test_an_override_that_cannot_be_honoured_is_refused_by_its_name(
    http: httpx.AsyncClient, voice_id: str, overrides: dict[str, Any], param: str
) -> None:
    answer = await http.post("/v1/clones", json={"voice": voice_id, "overrides": overrides})
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)


@pytest.mark.parametrize(
    "overrides",
    [{"gate": {"min_ended_share": 0}}, {"gate": {"max_word_error_rate": 1}}, {"prepare": {"min_snr_db": -1e308}}],
)
async def test_what_a_voice_must_reach_only_an_operator_overrides(
    house: House, http: httpx.AsyncClient, voice_id: str, overrides: dict[str, Any]
) -> None:
    body = {"voice": voice_id, "overrides": overrides}
    answer = await http.post("/v1/clones", json=body)
    [(group, [name])] = [(group, list(values)) for group, values in overrides.items()]
    assert (answer.status_code, error_of(answer)["param"]) == (403, f"overrides.{group}.{name}")
    async with house.holder_of(Scope.ADMIN) as operator:
        assert (await operator.post("/v1/clones", json=body)).status_code == 202


async def test_a_recorded_consent_that_nothing_here_can_hear_needs_an_operators_word(
    house: House, http: httpx.AsyncClient, voice_id: str
) -> None:
    voice = await house.catalog.voices.get(voice_id)
    await house.catalog.voices.add_consent(
        Consent(id="r", voice_id=voice_id, kind="recording", number=voice.consent_number, created_at=utc_now())
    )
    answer = await http.post("/v1/clones", json={"voice": voice_id})
    assert (answer.status_code, error_of(answer)["code"]) == (409, "consent_missing")
    async with house.holder_of(Scope.ADMIN) as operator:
        path = f"/v1/voices/{voice_id}/consent"
        assert (await operator.post(path, json={"statement": "Signed, in the safe."})).status_code == 201
    await queued(http, voice_id)


async def test_a_second_job_of_a_voice_is_refused_while_the_first_goes_on(
    http: httpx.AsyncClient, voice_id: str
) -> None:
    job = await queued(http, voice_id)
    answer = await http.post("/v1/clones", json={"voice": voice_id})
    assert (answer.status_code, error_of(answer)["code"]) == (409, "conflict")
    assert job["id"] in error_of(answer)["message"]


async def test_a_webhook_that_could_not_be_signed_is_refused(http: httpx.AsyncClient, voice_id: str) -> None:
    answer = await http.post("/v1/clones", json={"voice": voice_id, "webhook_url": "https://example.org/"})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "webhook_url")


async def test_events_tell_every_change_until_the_job_is_over(
    house: House, http: httpx.AsyncClient, voice_id: str
) -> None:
    job = await queued(http, voice_id)
    async with followed(http, f"/v1/clones/{job['id']}/events") as following:
        await following.until("queued")
        claimed = await taken(house, job)
        progress = TrainProgress(epoch=1, epochs=5, step=7, steps=50, loss=1.5)
        await house.catalog.jobs.update(claimed, state=CloneState.TRAINING, progress=progress)
        await following.until("training")
        for clips, state in ((5, CloneState.PREPARING), (5, CloneState.GATING), (6, CloneState.PUBLISHING)):
            report = DataReport(recordings=(), clips=clips, usable_s=60.0)
            await house.catalog.jobs.update(claimed, state=state, report=report)
            await following.until(state.value)
        await house.catalog.jobs.finish(claimed, CloneState.CANCELLED)
    assert following.heard[-1]["over"]
    reports = [(event["state"], event["report"]["clips"]) for event in following.heard if event.get("report")]
    assert reports == [("preparing", 5), ("publishing", 6)], "a report comes when it is new"
    assert [event["progress"]["step"] for event in following.heard if event["progress"]] == [7] * 5


async def test_a_queued_job_is_cancelled_at_once_and_one_in_work_is_asked_to_stop(
    house: House, http: httpx.AsyncClient, voice_id: str
) -> None:
    first = await queued(http, voice_id)
    assert (await http.post(f"/v1/clones/{first['id']}/cancel")).json()["state"] == "cancelled"
    second = await queued(http, voice_id)
    claimed = await taken(house, second)
    asked = (await http.post(f"/v1/clones/{second['id']}/cancel")).json()
    assert (asked["over"], asked["cancel_requested"]) == (False, True)
    assert await house.catalog.jobs.renew(claimed)
    again = await http.post(f"/v1/clones/{first['id']}/cancel")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")


async def test_a_built_in_voice_is_polished_under_its_own_name(
    house: House, http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    answer = await http.post("/v1/voices/slt/polish", json={})
    assert (answer.status_code, answer.json()["kind"]) == (202, "polish")
    voice = await house.catalog.voices.get(answer.json()["voice_id"])
    assert (voice.name, voice.prompt_name, voice.model) == ("slt", "slt", "standin")
    again = await http.post("/v1/voices/slt/polish", json={})
    assert again.status_code == 409


@pytest.mark.parametrize(
    "wanted",
    [{"overrides": {"train": {"rank": 64}}}, {"overrides": {"trian": {}}}, {"webhook_url": "https://example.org/"}],
)
async def test_a_polish_that_cannot_be_honoured_leaves_no_voice(
    house: House, http: httpx.AsyncClient, worker: FakeWorker, wanted: dict[str, Any]
) -> None:
    answer = await http.post("/v1/voices/slt/polish", json=wanted)
    assert answer.status_code == 400
    assert await house.catalog.voices.all() == []


async def test_a_built_in_voice_of_two_models_is_polished_by_the_models_name(
    house: House, http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    other = STAND_IN.model_copy(update={"name": "other", "voices": ("slt", "awb")})
    async with house.worker(id="w-2", card=other):
        answer = await http.post("/v1/voices/slt/polish", json={})
        assert (answer.status_code, error_of(answer)["param"]) == (400, "model")
        assert "other, standin" in error_of(answer)["message"]
        answer = await http.post("/v1/voices/rms/polish", json={"model": "other"})
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
        answer = await http.post("/v1/voices/slt/polish", json={"model": "other"})
        assert answer.status_code == 202
        assert (await house.catalog.voices.get(answer.json()["voice_id"])).model == "other"


async def test_only_a_built_in_voice_can_be_polished(http: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await http.post("/v1/voices/nobody/polish", json={})
    assert answer.status_code == 404
    assert "slt" in error_of(answer)["message"]


async def test_a_key_that_may_only_speak_may_not_clone(house: House, voice_id: str) -> None:
    async with house.holder_of(Scope.SPEAK) as http:
        for answer in (
            await http.post("/v1/clones", json={"voice": voice_id}),
            await http.get("/v1/clones"),
            await http.post("/v1/voices/slt/polish", json={}),
        ):
            assert (answer.status_code, error_of(answer)["code"]) == (403, "permission_denied")
