"""A narration's life over HTTP: what is told of it, how it is stopped, resumed, read again and deleted."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from redis.asyncio import Redis

from app.errors import StoreUnavailable
from app.narration.models import (
    NarrationOptions,
    NarrationSource,
    NarrationState,
    Script,
    ScriptSegment,
    SourceKind,
    Take,
)
from app.narration.segment_store import SegmentStore
from app.narration.store import NarrationStore
from app.platform.database import utc_now
from app.platform.object_keys import forgotten_key, narration_prefix
from app.speech.choices import NarrationFormat, Scope
from tasks.maintenance import sweep_store
from tests.api.conftest import OpenHouse, OpenLibrary
from tests.support.followed_job import followed
from tests.support.library import Library, error_of
from tests.support.published import publish

pytestmark = pytest.mark.anyio

NOWHERE = "https://example.org/"


async def published(library: Library, name: str) -> str:
    """The id of a clone that can be spoken with."""
    return (await publish(library.house.catalog, name, uri="s3://b/p/", sha256={})).id


@pytest.fixture(scope="module")

# Telling.


async def test_progress_is_told_by_chapters_with_what_it_cost(open_library: OpenLibrary) -> None:
    async with open_library(worker_usd_per_hour=7.2) as library:
        narration = await library.rendered((await library.queued())["id"])
        told = (await library.http.get(f"/v1/narrations/{narration.id}")).json()
    [worker] = [worker for worker in library.house.server.config.app.state.services.router.workers] or [None]  # type: ignore[union-attr]
    assert [(one["title"], one["segments"], one["segments_done"]) for one in told["chapters"]] == [
        ("One", 2, 2), ("Two", 1, 1),
    ]  # fmt: skip
    assert (told["segments"], told["segments_done"], told["audio_s"], told["busy_s"]) == (3, 3, 30.0, 15.0)
    assert (told["real_time_factor"], told["eta_s"], told["flagged"]) == (0.5, 0.0, 1)
    assert worker is not None
    assert told["cost_usd"] == pytest.approx(15 / 3600 * 7.2 / worker.capacity)


async def test_one_that_is_queued_says_its_place_and_what_it_waits_for(library: Library) -> None:
    first, second = await library.queued(), await library.queued()
    assert (first["ahead"], second["ahead"]) == (0, 1)
    assert first["waits_for"] == "a tasks process (`carillon tasks`) to take it up"
    assert second["waits_for"] == "1 narration before it"
    await library.planned(first["id"])
    told = (await library.http.get(f"/v1/narrations/{first['id']}")).json()
    assert (told["ahead"], told["waits_for"]) == (None, "a spare place at a worker: live sessions go first")


async def test_the_list_has_the_newest_without_their_chapters(library: Library) -> None:
    told = await library.queued()
    await library.planned(told["id"])
    [entry] = (await library.http.get("/v1/narrations")).json()["data"]
    assert (entry["id"], entry["segments"], "chapters" in entry, "findings" in entry) == (told["id"], 3, False, False)
    assert (await library.http.get("/v1/narrations", params={"limit": 0})).status_code == 400


async def test_events_tell_every_change_until_it_is_over_and_findings_once(library: Library) -> None:
    told = await library.queued()
    async with followed(library.http, f"/v1/narrations/{told['id']}/events") as following:
        await following.until("queued")
        narration = await library.rendered(told["id"])
        await following.until("mastering")
        await library.mastered(narration, b"audio")
    assert following.heard[-1]["over"]
    assert following.heard[-1]["links"]
    assert [len(event["findings"]) for event in following.heard if "findings" in event] == [1]


async def test_segments_are_told_as_planned_and_then_with_their_times(library: Library) -> None:
    told = await library.queued()
    path = f"/v1/narrations/{told['id']}/segments"
    answer = await library.http.get(path)
    assert (answer.status_code, error_of(answer)["code"]) == (409, "conflict")
    narration = await library.rendered(told["id"])
    planned = (await library.http.get(path)).json()["data"]
    assert [(one["number"], one["chapter"], one["start_s"]) for one in planned] == [
        (1, 1, None),
        (2, 1, None),
        (3, 2, None),
    ]
    await library.mastered(narration, b"audio")
    assert (await library.http.get(path, params={"chapter": 2})).json()["data"] == [
        {
            "number": 3,
            "chapter": 2,
            "character": "narrator",
            "voice": "slt",
            "written": "Nobody answered.",
            "spoken": "nobody answered.",
            "start_s": 20.0,
            "end_s": 30.0,
            "flags": ["too_long"],
        }
    ]
    timed = (await library.http.get(path, params={"chapter": 2, "words": True})).json()["data"][0]
    assert timed["approximate"]
    assert [word["text"] for word in timed["words"]] == ["Nobody", "answered."]
    assert (timed["words"][0]["start_s"], timed["words"][-1]["end_s"]) == (20.0, 30.0)
    flagged = (await library.http.get(path, params={"flagged": True})).json()["data"]
    assert [segment["number"] for segment in flagged] == [3]
    answer = await library.http.get(path, params={"chapter": 3})
    assert (answer.status_code, error_of(answer)["message"]) == (404, "there is no chapter 3; this narration has 2")


async def test_a_narration_that_is_not_there_is_not_found(library: Library) -> None:
    for method, path in [
        ("GET", ""),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/resume"),
        ("POST", "/segments/1/regenerate"),
        ("GET", "/segments"),
        ("GET", "/audio"),
        ("GET", "/chapters"),
        ("DELETE", ""),
    ]:
        answer = await library.http.request(method, f"/v1/narrations/nope{path}")
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found"), path


async def test_a_key_that_may_only_speak_may_not_narrate(library: Library) -> None:
    async with library.house.holder_of(Scope.SPEAK) as http:
        for method, path in [("POST", ""), ("GET", ""), ("GET", "/x"), ("GET", "/x/audio"), ("DELETE", "/x")]:
            answer = await http.request(method, f"/v1/narrations{path}")
            assert (answer.status_code, error_of(answer)["code"]) == (403, "permission_denied"), path


# Stopping and going on.


async def test_one_that_nobody_works_on_is_cancelled_at_once_and_resumed(library: Library) -> None:
    told = await library.queued()
    path = f"/v1/narrations/{told['id']}"
    assert (await library.http.post(f"{path}/cancel")).json()["state"] == "cancelled"
    resumed = await library.http.post(f"{path}/resume")
    assert (resumed.status_code, resumed.json()["state"]) == (202, "queued")
    again = await library.http.post(f"{path}/resume")
    assert (again.status_code, error_of(again)["code"]) == (409, "conflict")
    assert "is queued" in error_of(again)["message"]


async def test_one_that_failed_is_resumed_with_other_voices_that_are_held_against_the_text(library: Library) -> None:
    await published(library, "Mary")
    told = await library.queued(cast={"hero": "rms"})
    await library.failed(told["id"])
    path = f"/v1/narrations/{told['id']}/resume"
    answer = await library.http.post(path, json={"cast": {"villain": "slt"}})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "cast.villain")
    answer = await library.http.post(path, json={"voice": "nobody"})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "unknown_voice")
    answer = await library.http.post(path, json={"cast": {"HERO": "Mary"}})
    assert (answer.status_code, answer.json()["cast"], answer.json()["voice"]) == (202, {"hero": "Mary"}, "slt")
    narration = await library.book.get(told["id"])
    assert set(narration.voices) == {"slt", "Mary"}


async def test_a_voice_that_was_deleted_meanwhile_is_named_and_another_takes_its_place(library: Library) -> None:
    voice_id = await published(library, "Mary")
    told = await library.queued(cast={"hero": "Mary"})
    await library.failed(told["id"])
    await library.house.catalog.voices.delete(voice_id)
    path = f"/v1/narrations/{told['id']}/resume"
    answer = await library.http.post(path)
    assert (answer.status_code, error_of(answer)["code"]) == (409, "conflict")
    assert "'Mary' has been deleted" in error_of(answer)["message"]
    assert (await library.http.post(path, json={"cast": {"hero": "rms"}})).status_code == 202


async def test_a_segment_of_a_finished_narration_is_read_again(library: Library, valkey: str) -> None:
    narration = await library.completed()
    answer = await library.http.post(f"/v1/narrations/{narration.id}/segments/2/regenerate")
    assert (answer.status_code, answer.json()["state"], answer.json()["takes"]) == (202, "queued", {"2": 1})
    assert answer.json()["links"], "until then the old file is served"
    async with Redis.from_url(valkey) as redis:
        assert await redis.llen("render") == 2  # type: ignore[misc]


async def test_several_segments_are_read_again_at_once(library: Library) -> None:
    narration = await library.completed()
    path = f"/v1/narrations/{narration.id}/segments/regenerate"
    assert (await library.http.post(path, json={"segments": [1, 4]})).status_code == 404
    assert (await library.http.post(path, json={"segments": []})).status_code == 400
    answer = await library.http.post(path, json={"segments": [3, 1]})
    assert (answer.status_code, answer.json()["takes"]) == (202, {"1": 1, "3": 1})
    assert [chapter["finished"] for chapter in answer.json()["chapters"]] == [False, False]


async def test_a_segment_is_heard_by_itself_as_soon_as_it_is_spoken(library: Library) -> None:
    narration = await library.planned((await library.queued())["id"])
    address = f"/v1/narrations/{narration.id}/segments"
    early = await library.http.get(f"{address}/2/audio")
    assert (early.status_code, "segment 2 has not been spoken yet" in early.text) == (409, True)
    assert (await library.http.get(f"{address}/4/audio")).status_code == 404
    segment = ScriptSegment(number=2, character="hero", written="Who is there?", spoken="who is there?")
    take = Take(key="", samples=9, sample_rate_hz=24_000, speech_s=0.1, voice="slt", worker="w", busy_s=1.0)
    samples = np.linspace(-0.5, 0.5, 9, dtype=np.float32)
    await SegmentStore(library.store, narration).keep(segment, samples, take)
    answer = await library.http.get(f"{address}/2/audio")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/flac")
    heard, rate_hz = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    assert rate_hz == 24_000
    np.testing.assert_allclose(heard, samples, atol=1e-4)


async def test_a_segment_is_not_read_again_when_any_voice_of_the_narration_was_deleted(library: Library) -> None:
    voice_id = await published(library, "Mary")
    narration = await library.completed(cast={"hero": "Mary"})
    await library.house.catalog.voices.delete(voice_id)
    answer = await library.http.post(f"/v1/narrations/{narration.id}/segments/1/regenerate")
    assert (answer.status_code, error_of(answer)["code"]) == (409, "conflict")
    assert error_of(answer)["message"] == (
        "the voice 'Mary' has been deleted; submit the text again with another in its place"
    )
    assert (await library.book.get(narration.id)).state is NarrationState.COMPLETED


async def test_a_segment_that_is_not_there_is_told_with_their_count(library: Library) -> None:
    narration = await library.completed()
    for number in (0, 4, -1):
        answer = await library.http.post(f"/v1/narrations/{narration.id}/segments/{number}/regenerate")
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
        assert error_of(answer)["message"] == f"there is no segment {number}; this narration has 3, from 1"
    assert (await library.book.get(narration.id)).state is NarrationState.COMPLETED


async def test_a_segment_is_not_read_again_before_all_is_done(library: Library) -> None:
    narration = await library.rendered((await library.queued())["id"])
    answer = await library.http.post(f"/v1/narrations/{narration.id}/segments/1/regenerate")
    assert (answer.status_code, error_of(answer)["code"]) == (409, "conflict")
    assert "is mastering, 3 of 3 segments are spoken" in error_of(answer)["message"]


# Deleting.


async def test_a_narration_goes_with_its_files_once_it_is_over(library: Library) -> None:
    narration = await library.completed()
    other = (await library.queued())["id"]
    path = f"/v1/narrations/{narration.id}"
    assert list(library.store.keys(narration_prefix(narration.id)))
    assert (await library.http.delete(path)).json() == {"id": narration.id, "deleted": True}
    assert list(library.store.keys(narration_prefix(narration.id))) == [forgotten_key(narration.id)]
    assert list(library.store.keys(narration_prefix(other)))
    assert (await library.http.get(path)).status_code == 404
    answer = await library.http.delete(f"/v1/narrations/{other}")
    assert (answer.status_code, error_of(answer)["code"]) == (409, "conflict")
    assert "is queued; cancel it first" in error_of(answer)["message"]
    assert list(library.store.keys(narration_prefix(other)))


async def test_its_segments_go_unless_another_narration_has_them(library: Library) -> None:
    narration, other = await library.completed(), await library.completed()
    segment_store = SegmentStore(library.store, narration)
    assert narration.script_key
    script = Script.model_validate_json(library.store.get(narration.script_key))
    segments = [segment for chapter in script.chapters for segment in chapter.segments]
    take = Take(key="", samples=9, sample_rate_hz=24_000, speech_s=1, voice="slt", worker="w", busy_s=1)
    kept = [await segment_store.keep(segment, np.zeros(9, np.float32), take) for segment in segments]
    await segment_store.list(f"{narration_prefix(other.id)}takes/1-1.json", {1: kept[0]})
    foreign = kept[0].key.replace(segment_store.digest(segments[0]), "f" * 64)
    library.store.put(foreign, b"another's, not listed yet")
    settings, existing = library.house.settings, {other.id}
    await asyncio.to_thread(sweep_store, settings, {narration.id, other.id}, utc_now())
    assert len(list(library.store.keys("voices/"))) == 7

    await library.http.delete(f"/v1/narrations/{narration.id}")
    await asyncio.to_thread(sweep_store, settings, existing, utc_now())
    prefix = kept[0].key.rpartition("-")[0]
    assert sorted(library.store.keys("voices/")) == sorted([f"{prefix}.json", kept[0].key, foreign])
    assert list(library.store.keys(narration_prefix(narration.id))) == []

    await library.http.delete(f"/v1/narrations/{other.id}")
    await asyncio.to_thread(sweep_store, settings, set(), utc_now())
    assert list(library.store.keys("voices/")) == [foreign]


async def test_what_an_earlier_reading_said_goes_too(library: Library) -> None:
    narration = await library.completed()
    assert narration.script_key
    script = Script.model_validate_json(library.store.get(narration.script_key))
    again = narration.model_copy(update={"takes": {1: 2}})
    assert len(SegmentStore(library.store, again).every_digest(script)) == 3 + 2


async def test_a_full_disk_keeps_no_narration(library: Library) -> None:
    """No row changes before something has gone from the disk."""
    narration = await library.completed()
    services = library.house.server.config.app.state.services  # type: ignore[union-attr]

    class FullDisk(NarrationStore):
        async def delete(self, narration_id: str) -> None:
            if list(library.store.keys(narration_prefix(narration_id))):
                raise StoreUnavailable("the disk is full")
            await super().delete(narration_id)

    store = FullDisk(library.house.catalog.database, now=utc_now)
    await replace(services.narrations, narrations=store).delete(narration.id)
    assert (await library.http.get(f"/v1/narrations/{narration.id}")).status_code == 404


async def test_a_narration_goes_though_the_store_is_away(open_house: OpenHouse) -> None:
    """Its row goes first: were the files to go and the row to stay, it would promise what is not there."""
    async with open_house() as house, house.holder_of(Scope.NARRATE) as http:
        narration = await house.catalog.narrations.create(
            narration_id="nar_1",
            voice="slt",
            cast={},
            voices={},
            model="standin",
            format=NarrationFormat.M4B,
            options=NarrationOptions(),
            source=NarrationSource(kind=SourceKind.TEXT, file_name="a.txt", key="k", size_bytes=3),
            title="",
        )
        await house.catalog.narrations.request_cancel(narration.id)
        assert (await http.delete(f"/v1/narrations/{narration.id}")).status_code == 200
        assert (await http.get(f"/v1/narrations/{narration.id}")).status_code == 404
