"""`Idempotency-Key`: what is sent twice is made once, and each project's keys are its own."""

from __future__ import annotations

import asyncio

import pytest

from app.platform.tables import DEFAULT_PROJECT
from app.speech.choices import Scope
from tests.api.conftest import House, Library, Studio
from tests.support.fake_worker import FakeWorker
from tests.support.recordings import recording
from tests.support.session_client import SPEECH, error_of

pytestmark = pytest.mark.anyio

KEY = {"Idempotency-Key": "0b61f6a8"}


async def test_a_request_that_is_repeated_gets_the_first_answer_and_makes_nothing_more(studio: Studio) -> None:
    answers = [await studio.http.post("/v1/voices", json={"name": "Mary"}, headers=KEY) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true"]
    assert len((await studio.http.get("/v1/voices")).json()["data"]) == 1


async def test_a_narration_is_queued_once_and_its_location_is_told_again(library: Library) -> None:
    wanted = {"voice": "slt", "text": "Hello there."}
    first, second = [await library.http.post("/v1/narrations", json=wanted, headers=KEY) for _ in range(2)]
    assert first.headers["location"] == second.headers["location"] == f"/v1/narrations/{first.json()['id']}"
    assert len((await library.http.get("/v1/narrations")).json()["data"]) == 1


async def test_two_at_one_moment_make_one(studio: Studio) -> None:
    answers = await asyncio.gather(
        *(studio.http.post("/v1/voices", json={"name": "Mary"}, headers=KEY) for _ in range(5))
    )
    codes = {answer.status_code for answer in answers}
    assert 201 in codes <= {201, 409}
    assert len((await studio.http.get("/v1/voices")).json()["data"]) == 1


@pytest.mark.parametrize(("path", "body"), [("/v1/voices", {"name": "Ann"}), ("/v1/clones", {"voice": "Mary"})])
async def test_a_key_is_for_one_request(studio: Studio, path: str, body: dict[str, str]) -> None:
    await studio.http.post("/v1/voices", json={"name": "Mary"}, headers=KEY)
    refused = await studio.http.post(path, json=body, headers=KEY)
    assert (refused.status_code, error_of(refused)["param"]) == (400, "idempotency-key")


async def test_what_was_refused_for_now_is_worked_on_when_it_comes_again(studio: Studio) -> None:
    await studio.http.post("/v1/voices", json={"name": "Mary"})
    refused = await studio.http.post("/v1/voices", json={"name": "Mary"}, headers=KEY)
    assert refused.status_code == 409
    [mary] = (await studio.http.get("/v1/voices")).json()["data"]
    await studio.http.delete(f"/v1/voices/{mary['id']}")
    assert (await studio.http.post("/v1/voices", json={"name": "Mary"}, headers=KEY)).status_code == 201


async def test_another_project_may_use_the_same_key(studio: Studio) -> None:
    project = await studio.house.catalog.projects.create("other")
    mine = await studio.http.post("/v1/voices", json={"name": "Mary"}, headers=KEY)
    async with studio.house.holder_of(Scope.CLONE, project=project.id) as other:
        theirs = await other.post("/v1/voices", json={"name": "Mary"}, headers=KEY)
    assert (theirs.status_code, theirs.json()["id"] == mine.json()["id"]) == (201, False)


async def test_a_keys_token_is_told_once_and_kept_nowhere(house: House) -> None:
    async with house.holder_of(Scope.MANAGE, Scope.SPEAK) as http:
        first = await http.post("/v1/keys", json={"name": "laptop"}, headers=KEY)
        second = await http.post("/v1/keys", json={"name": "laptop"}, headers=KEY)
        assert (first.status_code, second.status_code) == (201, 409)
        assert first.json()["id"] in error_of(second)["message"]
        assert first.json()["token"] not in second.text
        assert len([key for key in (await http.get("/v1/keys")).json()["data"] if key["name"] == "laptop"]) == 1


async def test_audio_passes_as_it_comes(house: House, worker: FakeWorker) -> None:
    wanted = {"voice": "slt", "input": "Hello.", "response_format": "pcm"}
    answers = [await house.http.post(SPEECH, json=wanted, headers=KEY) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content != b""


async def test_a_key_that_no_client_means_is_refused(studio: Studio) -> None:
    refused = await studio.http.post("/v1/voices", json={"name": "Mary"}, headers={"Idempotency-Key": "x" * 300})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "idempotency-key")


async def test_without_an_api_key_nothing_is_kept(house: House) -> None:
    refused = await house.http.post("/v1/voices", json={"name": "M"}, headers={**KEY, "Authorization": "Bearer x"})
    assert refused.status_code == 401


async def test_a_narration_whose_answer_was_lost_is_found_by_the_retry(library: Library) -> None:
    wanted = {"voice": "slt", "text": "Hello there."}
    first = await library.http.post("/v1/narrations", json=wanted, headers=KEY)
    await _forget_the_answer(library.house)
    second = await library.http.post("/v1/narrations", json=wanted, headers=KEY)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    assert len((await library.http.get("/v1/narrations")).json()["data"]) == 1
    await library.http.post("/v1/narrations", json=wanted, headers={"Idempotency-Key": "another"})
    assert len((await library.http.get("/v1/narrations")).json()["data"]) == 2


async def test_a_voice_whose_answer_was_lost_is_found_by_the_retry(studio: Studio) -> None:
    first = await studio.http.post("/v1/voices", json={"name": "Mary"}, headers=KEY)
    await _forget_the_answer(studio.house)
    second = await studio.http.post("/v1/voices", json={"name": "Mary"}, headers=KEY)
    assert (first.status_code, second.status_code) == (201, 201), second.text
    assert first.json()["id"] == second.json()["id"]


async def test_recordings_whose_answer_was_lost_are_not_kept_twice(studio: Studio) -> None:
    samples = f"/v1/voices/{await studio.voice()}/samples"
    files = [("files", (f"{number}.wav", recording(seconds=3 + number))) for number in range(2)]
    first = await studio.http.post(samples, files=files, headers=KEY)
    await _forget_the_answer(studio.house)
    second = await studio.http.post(samples, files=files, headers=KEY)
    assert (first.status_code, second.status_code) == (201, 201), second.text
    assert first.json()["samples"] == second.json()["samples"]
    assert second.json()["sample_count"] == 2


async def test_a_clone_job_whose_answer_was_lost_is_found_by_the_retry(studio: Studio) -> None:
    first = await studio.http.post("/v1/voices/slt/polish", json={}, headers=KEY)
    await _forget_the_answer(studio.house)
    second = await studio.http.post("/v1/voices/slt/polish", json={}, headers=KEY)
    assert (first.status_code, second.status_code) == (202, 202), second.text
    assert first.json()["id"] == second.json()["id"]


async def test_a_key_whose_token_was_lost_on_its_way_is_named_and_not_made_again(house: House) -> None:
    async with house.holder_of(Scope.MANAGE, Scope.SPEAK) as http:
        first = await http.post("/v1/keys", json={"name": "laptop"}, headers=KEY)
        await _forget_the_answer(house)
        second = await http.post("/v1/keys", json={"name": "laptop"}, headers=KEY)
        assert (first.status_code, second.status_code) == (201, 409)
        assert first.json()["id"] in error_of(second)["message"]


async def _forget_the_answer(house: House) -> None:
    """As where the request's process dies between making and answering, or the catalogue is away then."""
    await house.catalog.idempotency.release(DEFAULT_PROJECT, KEY["Idempotency-Key"])
