"""Voices and consent over HTTP: a real catalogue, a real store, real inspection."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from app.errors import AdapterUnavailable, StoreUnavailable
from app.platform.database import utc_now
from app.speech.choices import Scope
from app.voices.store import VoiceStore
from tasks.maintenance import sweep_store
from tests.api.conftest import House, Studio
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker
from tests.support.published import publish
from tests.support.recordings import recording
from tests.support.speech import spoken_consent

pytestmark = pytest.mark.anyio


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def message(answer: httpx.Response) -> str:
    return answer.json()["error"]["message"]


async def test_a_new_voice_is_empty_and_says_what_its_owner_must_read(studio: Studio) -> None:
    answer = await studio.http.post("/v1/voices", json={"name": " Mary ", "description": "warm"})
    assert answer.status_code == 201
    voice = answer.json()
    assert (voice["name"], voice["model"], voice["language"], voice["state"]) == ("Mary", "standin", "en", "empty")
    assert (voice["version"], voice["versions"], voice["sample_count"], voice["consent"]) == (0, [], 0, None)
    record = await studio.house.catalog.voices.get(voice["id"])
    assert " ".join(record.consent_number) in voice["consent_phrase"]
    assert (await studio.http.get(f"/v1/voices/{voice['id']}")).json() == voice
    assert (await studio.http.get("/v1/voices")).json()["data"] == [voice]


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "a\nb", "a\u202eb"])
async def test_a_name_that_cannot_be_shown_is_refused(studio: Studio, name: str) -> None:
    answer = await studio.http.post("/v1/voices", json={"name": name})
    assert refusal(answer) == (400, "invalid_request")
    assert "printable" in message(answer)


async def test_a_name_that_is_taken_is_a_conflict(studio: Studio) -> None:
    mary = await studio.voice("Mary")
    for name in ("Mary", "slt", "SLT", mary):
        assert refusal(await studio.http.post("/v1/voices", json={"name": name})) == (409, "conflict")


async def test_a_model_that_is_not_served_is_refused_with_those_that_are(studio: Studio) -> None:
    answer = await studio.http.post("/v1/voices", json={"name": "Mary", "model": "other"})
    assert refusal(answer) == (404, "unknown_model")
    assert "standin" in message(answer)


@pytest.mark.parametrize("body", [{}, {"name": "Mary", "colour": "red"}, {"name": "Mary", "language": "English!"}])
async def test_a_wrong_field_is_named(studio: Studio, body: dict[str, str]) -> None:
    answer = await studio.http.post("/v1/voices", json=body)
    assert refusal(answer) == (400, "invalid_request")
    assert answer.json()["error"]["param"] in ("name", "colour", "language")


async def test_without_a_worker_a_voice_can_be_made_later(house: House) -> None:
    async with house.holder_of(Scope.CLONE) as http:
        answer = await http.post("/v1/voices", json={"name": "Mary"})
    assert refusal(answer) == (503, "overloaded")
    assert answer.headers["retry-after"]


async def test_without_a_store_voices_are_made_but_recordings_are_refused(house: House) -> None:
    async with house.worker(), house.holder_of(Scope.CLONE) as http:
        voice = (await http.post("/v1/voices", json={"name": "Mary"})).json()["id"]
        answer = await http.post(f"/v1/voices/{voice}/samples", files={"files": ("a.wav", b"RIFF")})
        assert refusal(answer) == (503, "store_unavailable")
        assert "CARILLON_STORE__ENDPOINT_URL" in message(answer)
        assert (await http.delete(f"/v1/voices/{voice}")).status_code == 200


async def test_every_door_asks_for_the_scope_clone(studio: Studio) -> None:
    voice = await studio.voice()
    doors = [
        ("POST", "/v1/voices"),
        ("GET", "/v1/voices"),
        ("GET", f"/v1/voices/{voice}"),
        ("DELETE", f"/v1/voices/{voice}"),
        ("POST", f"/v1/voices/{voice}/rollback"),
        ("POST", f"/v1/voices/{voice}/prefetch"),
        ("POST", f"/v1/voices/{voice}/consent"),
        ("GET", f"/v1/voices/{voice}/consent"),
        ("POST", f"/v1/voices/{voice}/samples"),
        ("GET", f"/v1/voices/{voice}/samples"),
        ("GET", f"/v1/voices/{voice}/samples/s"),
        ("PUT", f"/v1/voices/{voice}/samples/s/transcript"),
        ("DELETE", f"/v1/voices/{voice}/samples/s"),
        ("POST", f"/v1/voices/{voice}/uploads"),
        ("POST", f"/v1/voices/{voice}/uploads/u"),
        ("POST", "/v1/audio/voice_consents"),
        ("GET", "/v1/audio/voice_consents"),
        ("GET", "/v1/audio/voice_consents/c"),
        ("POST", "/v1/audio/voice_consents/c"),
        ("DELETE", "/v1/audio/voice_consents/c"),
        ("POST", "/v1/audio/voices"),
        ("DELETE", f"/v1/audio/voices/{voice}"),
    ]
    for method, path in doors:
        assert refusal(await studio.house.http.request(method, path)) == (403, "permission_denied"), path
    assert (await studio.http.get(f"/v1/voices/{voice}")).status_code == 200


async def test_rolling_back_puts_the_version_before_in_force(studio: Studio) -> None:
    catalog = studio.house.catalog
    mary = await publish(catalog, "Mary", uri="file:///1/", sha256={})
    await publish(catalog, "Mary", uri="file:///2/", sha256={})
    path = f"/v1/voices/{mary.id}/rollback"
    back = (await studio.http.post(path)).json()
    assert (back["version"], back["versions"], back["state"]) == (1, [1, 2], "ready")
    assert refusal(await studio.http.post(path)) == (404, "not_found")
    assert (await studio.http.post(path, json={"version": 2})).json()["version"] == 2
    answer = await studio.http.post(path, json={"version": 3})
    assert refusal(answer) == (404, "not_found")
    assert "it has: 1, 2" in message(answer)


async def test_a_prefetched_voice_is_where_it_will_be_spoken_and_holds_no_place(
    house: House, worker: FakeWorker
) -> None:
    mary = await publish(house.catalog, "Mary", uri="file:///1/", sha256={})
    async with house.holder_of(Scope.CLONE) as http:
        answer = await http.post(f"/v1/voices/{mary.id}/prefetch")
    assert answer.json() == {"id": mary.id, "version": 1, "worker": worker.id}
    (assigned,) = worker.assigned
    assert (assigned.voice.adapter, assigned.pace) == (mary.adapter, "background")
    await worker.until_leases(0)


async def test_what_cannot_be_prefetched_is_told(house: House) -> None:
    mary = await publish(house.catalog, "Mary", uri="file:///1/", sha256={})
    empty = await house.catalog.voices.create("Anna", model="standin")
    async with house.holder_of(Scope.CLONE) as http:
        assert refusal(await http.post(f"/v1/voices/{mary.id}/prefetch")) == (503, "overloaded")  # no worker yet
        async with house.worker() as worker:
            assert refusal(await http.post(f"/v1/voices/{empty.id}/prefetch")) == (404, "unknown_voice")
            assert refusal(await http.post("/v1/voices/slt/prefetch")) == (404, "not_found")
            worker.refusal = AdapterUnavailable("its files are gone")
            assert refusal(await http.post(f"/v1/voices/{mary.id}/prefetch")) == (503, "adapter_unavailable")


async def test_a_deleted_voice_leaves_nothing_but_its_tombstone(studio: Studio) -> None:
    voice, other = await studio.voice("Mary"), await studio.voice("Anna")
    for id in (voice, other):
        await studio.http.post(f"/v1/voices/{id}/samples", files={"files": ("a.wav", recording())})
    studio.store.put(f"voices/{voice}/1/adapter/adapter_model.safetensors", b"weights")
    assert len(studio.keys(voice)) == 2
    deleted = (await studio.http.delete(f"/v1/voices/{voice}")).json()
    assert (deleted["id"], deleted["deleted"]) == (voice, True)
    assert studio.keys(voice) == []
    assert len(studio.keys(other)) == 1
    for method, path in (("GET", ""), ("GET", "/samples"), ("POST", "/samples"), ("GET", "/consent")):
        answer = await studio.http.request(method, f"/v1/voices/{voice}{path}")
        assert refusal(answer) == (404, "not_found"), path
    assert await studio.voice("Mary") != voice


async def test_what_stays_of_a_deleted_voice_is_named_with_the_reason(studio: Studio) -> None:
    mary = await publish(studio.house.catalog, "Mary", uri="s3://b/p/", sha256={})
    async with studio.house.holder_of(Scope.NARRATE) as narrator:
        text = {"text": "It was dark."}
        book = (await narrator.post("/v1/narrations", json=text | {"voice": "Mary"})).json()["id"]
        assert (await narrator.post("/v1/narrations", json=text | {"voice": "slt"})).status_code == 202
    stays = (await studio.http.delete(f"/v1/voices/{mary.id}")).json()["stays"]
    assert {one["what"]: one["ids"] for one in stays} == {
        "narrations": [book],
        "usage": [],
        "audit": [],
        "tombstone": [],
    }
    assert all(one["why"] for one in stays)


async def test_a_full_disk_keeps_no_voice(studio: Studio) -> None:
    """No row changes before something has gone from the disk."""
    voice = await studio.voice()
    studio.store.put(f"voices/{voice}/1/adapter/adapter_model.safetensors", b"weights")
    services = studio.house.server.config.app.state.services  # type: ignore[union-attr]

    class FullDisk(VoiceStore):
        async def delete(self, voice_id: str) -> None:
            if studio.keys(voice_id):
                raise StoreUnavailable("the disk is full")
            await super().delete(voice_id)

    store = FullDisk(studio.house.catalog.database, now=utc_now)
    await replace(services.voices, voices=store).delete(voice)
    assert studio.keys(voice) == []
    assert (await studio.http.get(f"/v1/voices/{voice}")).status_code == 404


async def test_an_upload_that_is_never_completed_is_swept_after_a_day(studio: Studio) -> None:
    voice, settings = await studio.voice(), studio.house.settings
    files = [{"file_name": "a.wav", "size_bytes": 4}]
    [upload] = (await studio.http.post(f"/v1/voices/{voice}/uploads", json={"files": files})).json()["uploads"]
    async with httpx.AsyncClient(trust_env=False) as sender:
        assert (await sender.put(upload["url"], content=b"RIFF")).status_code == 200
    assert len(studio.keys(voice)) == 2
    await asyncio.to_thread(sweep_store, settings, set(), utc_now())
    assert len(studio.keys(voice)) == 2, "it may be completed still"
    await asyncio.to_thread(sweep_store, settings, set(), utc_now() + timedelta(days=2))
    assert studio.keys(voice) == []
    answer = await studio.http.post(f"/v1/voices/{voice}/uploads/{upload['id']}")
    assert (refusal(answer), "announce it first" in message(answer)) == ((404, "not_found"), True)


async def test_deleting_again_finishes_what_an_absent_store_left(studio: Studio) -> None:
    voice = await studio.voice()
    await studio.http.delete(f"/v1/voices/{voice}")
    studio.store.put(f"voices/{voice}/left", b"behind")
    assert (await studio.http.delete(f"/v1/voices/{voice}")).status_code == 200
    assert studio.keys(voice) == []
    assert refusal(await studio.http.delete("/v1/voices/abcdefghijkl")) == (404, "not_found")


async def test_a_recorded_consent_is_kept_with_the_number_of_the_voice(studio: Studio) -> None:
    voice = await studio.voice()
    path = f"/v1/voices/{voice}/consent"
    before = (await studio.http.get(path)).json()
    assert before["consent"] is None
    assert "My number is" in before["phrase"]
    record = await studio.house.catalog.voices.get(voice)
    said = {"recording": ("me.wav", spoken_consent(record.consent_number))}
    answer = await studio.http.post(path, files=said, timeout=HANG_S)
    assert answer.status_code == 201, answer.text
    consent = answer.json()
    assert (consent["kind"], consent["number"], consent["checked"]) == ("recording", record.consent_number, True)
    assert "owner of this voice" in consent["statement"]
    assert (await studio.http.get(path)).json()["consent"] == consent
    assert (await studio.http.get(f"/v1/voices/{voice}")).json()["consent"] == consent
    assert studio.keys(voice) == [f"voices/{voice}/consent/{consent['id']}.wav"]


@pytest.mark.parametrize(
    ("number", "why"),
    [("", "has not the number of this voice: heard was"), ("other", "has not the number of this voice: heard was")],
)
async def test_a_consent_without_the_voices_own_number_is_refused_with_what_was_heard(
    studio: Studio, number: str, why: str
) -> None:
    voice = await studio.voice()
    own = (await studio.house.catalog.voices.get(voice)).consent_number
    other = "".join(str((int(digit) + 5) % 10) for digit in own) if number else ""
    said = {"recording": ("me.wav", spoken_consent(other))}
    answer = await studio.http.post(f"/v1/voices/{voice}/consent", files=said, timeout=HANG_S)
    assert answer.status_code == 400
    assert why in message(answer)
    assert studio.keys(voice) == []


async def test_a_tone_is_no_consent_and_in_another_language_it_is_kept_unchecked(studio: Studio) -> None:
    voice = await studio.voice()
    tone = {"recording": ("me.wav", recording(3))}
    answer = await studio.http.post(f"/v1/voices/{voice}/consent", files=tone, timeout=HANG_S)
    assert answer.status_code == 400
    assert "is not the consent" in message(answer)
    german = (await studio.http.post("/v1/voices", json={"name": "Grete", "language": "de"})).json()["id"]
    kept = (await studio.http.post(f"/v1/voices/{german}/consent", files=tone, timeout=HANG_S)).json()
    assert (kept["checked"], kept["statement"]) == (False, None)


@pytest.mark.parametrize(("seconds", "why"), [(1, "at least 2 s"), (61, "1:00")])
async def test_a_consent_of_the_wrong_length_is_refused(studio: Studio, seconds: float, why: str) -> None:
    voice = await studio.voice()
    answer = await studio.http.post(f"/v1/voices/{voice}/consent", files={"recording": ("me.wav", recording(seconds))})
    assert answer.status_code == 400
    assert why in message(answer)
    assert studio.keys(voice) == []


async def test_a_form_without_the_recording_is_refused(studio: Studio) -> None:
    voice = await studio.voice()
    answer = await studio.http.post(f"/v1/voices/{voice}/consent", files={"record": ("me.wav", recording(3))})
    assert refusal(answer) == (400, "invalid_request")
    assert answer.json()["error"]["param"] == "recording"


async def test_an_operators_word_needs_admin_and_is_logged_without_it(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    voice = await studio.voice()
    body = {"statement": "signed paper in drawer 3"}
    assert refusal(await studio.http.post(f"/v1/voices/{voice}/consent", json=body)) == (403, "permission_denied")
    with caplog.at_level(logging.INFO, logger="app.voices.consents"):
        async with studio.house.holder_of(Scope.ADMIN) as operator:
            answer = await operator.post(f"/v1/voices/{voice}/consent", json=body)
    assert answer.status_code == 201
    consent = answer.json()
    assert (consent["kind"], consent["statement"]) == ("operator", "signed paper in drawer 3")
    (record,) = [record for record in caplog.records if record.msg == "operator consent"]
    assert (vars(record)["voice"], vars(record)["key"]) == (voice, consent["key_id"])
    assert "drawer" not in str(vars(record))


async def test_voices_are_listed_in_pages(studio: Studio) -> None:
    ids = [await studio.voice(name) for name in ("Ann", "Ben", "Cid")]
    first = (await studio.http.get("/v1/voices", params={"limit": 2})).json()
    assert ([voice["id"] for voice in first["data"]], first["has_more"]) == (ids[:2], True)
    rest = (await studio.http.get("/v1/voices", params={"limit": 2, "after": ids[1]})).json()
    assert ([voice["id"] for voice in rest["data"]], rest["has_more"]) == (ids[2:], False)
    assert (await studio.http.get("/v1/voices", params={"after": "nope"})).status_code == 404
