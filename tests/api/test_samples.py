"""Recordings over HTTP, in forms and by presigned addresses: a real store, real inspection, hostile files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest

from app.speech.choices import Scope
from tests.api.conftest import OpenStudio, Studio
from tests.support.deadlines import HANG_S
from tests.support.real_services import needs_signatures
from tests.support.recordings import recording

pytestmark = pytest.mark.anyio

GOOD = recording()


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def message(answer: httpx.Response) -> str:
    return answer.json()["error"]["message"]


async def send(studio: Studio, voice: str, files: list[tuple[str, bytes]], **fields: object) -> httpx.Response:
    """A form with `files`; other parts are fields."""
    return await studio.http.post(
        f"/v1/voices/{voice}/samples", files=[("files", file) for file in files], data=fields, timeout=HANG_S
    )


def transcripts_of(answer: httpx.Response) -> dict[str, str | None]:
    return {sample["file_name"]: sample["transcript"] for sample in answer.json()["samples"]}


async def test_every_format_is_kept_with_its_facts(studio: Studio) -> None:
    voice = await studio.voice()
    files = [(f"take.{name.lower()}", recording(1.5, format=name)) for name in ("WAV", "FLAC", "MP3", "OGG")]
    answer = await send(studio, voice, files)
    assert answer.status_code == 201
    assert answer.json()["rejected"] == []
    samples = answer.json()["samples"]
    assert [sample["facts"]["container"] for sample in samples] == ["wav", "flac", "mp3", "ogg"]
    assert all(sample["facts"]["duration_s"] == pytest.approx(1.5, abs=0.1) for sample in samples)
    assert [sample["size_bytes"] for sample in samples] == [len(data) for _, data in files]
    record = (await studio.http.get(f"/v1/voices/{voice}")).json()
    assert (record["sample_count"], record["state"]) == (4, "collecting")
    assert answer.json()["sample_s"] == record["sample_s"] == pytest.approx(6, abs=0.4)
    stored = [sample.object_key for sample in await studio.house.catalog.voices.samples(voice)]
    assert sorted(stored) == studio.keys(voice)
    assert sorted(studio.store.get(key) for key in stored) == sorted(data for _, data in files)
    assert studio.waiting_files == []


async def test_a_bad_file_does_not_spoil_the_rest(studio: Studio) -> None:
    voice = await studio.voice()
    files = [("a.wav", GOOD), ("words.wav", b"I am no audio.\n" * 99), ("zero.wav", b""), ("cut.flac", b"fLaC")]
    answer = await send(studio, voice, files)
    assert answer.status_code == 201
    assert [sample["file_name"] for sample in answer.json()["samples"]] == ["a.wav"]
    rejected = {one["file_name"]: one["message"] for one in answer.json()["rejected"]}
    assert rejected.keys() == {"words.wav", "zero.wav", "cut.flac"}
    assert "is a text file" in rejected["words.wav"]
    assert "0 bytes" in rejected["zero.wav"]
    assert len(studio.keys(voice)) == 1


async def test_only_when_nothing_is_usable_the_form_is_refused(studio: Studio) -> None:
    voice = await studio.voice()
    answer = await send(studio, voice, [("a.wav", b"no audio"), ("b.wav", b"no audio either")])
    assert refusal(answer) == (400, "recording_unfit")
    assert "a.wav is a text file" in message(answer)
    assert "b.wav is a text file" in message(answer)
    assert studio.keys(voice) == []


async def test_hostile_file_names_are_shown_and_never_used(studio: Studio) -> None:
    voice = await studio.voice()
    names = ["../../../etc/cron.d/evil.wav", "C:\\temp\\two.wav", "x" * 10_000 + ".wav", "gnp\u202evaw.wav", "…"]
    answer = await send(studio, voice, [(name, GOOD) for name in names])
    assert answer.status_code == 201, answer.text
    shown = [sample["file_name"] for sample in answer.json()["samples"]]
    assert shown == ["evil.wav", "two.wav", "x" * 124 + ".wav", "gnpvaw.wav", "…"]
    keys = studio.keys(voice)
    assert len(keys) == 5
    assert all(key.startswith(f"voices/{voice}/samples/") and key.isascii() for key in keys)


async def test_transcripts_come_in_the_order_of_the_files(studio: Studio) -> None:
    voice = await studio.voice()
    answer = await send(studio, voice, [("b.wav", GOOD), ("a.wav", GOOD)], transcripts=["Bee.\n", ""])
    assert transcripts_of(answer) == {"b.wav": "Bee.", "a.wav": None}
    answer = await send(studio, voice, [("c.wav", GOOD), ("d.wav", GOOD)], transcripts=["See."])
    assert refusal(answer) == (400, "invalid_request")
    assert "1 for 2 files" in message(answer)


async def test_a_manifest_gives_the_words_and_its_unknown_files_are_told(studio: Studio) -> None:
    voice = await studio.voice()
    parts = [
        ("files", ("a.wav", GOOD)),
        ("files", ("b.flac", recording(format="FLAC"))),
        ("files", ("c.wav", GOOD)),
        ("files", ("c.txt", b"\xef\xbb\xbfSee.")),
        ("manifest", ("metadata.csv", b"a|AY|Ay.\nb|Bee.\nmissing|Nothing.\n")),
    ]
    answer = await studio.http.post(f"/v1/voices/{voice}/samples", files=parts)
    assert transcripts_of(answer) == {"a.wav": "Ay.", "b.flac": "Bee.", "c.wav": "See."}
    (stray,) = answer.json()["rejected"]
    assert (stray["file_name"], stray["code"]) == ("missing", "invalid_request")
    assert "no file of that name" in stray["message"]


async def test_a_manifest_may_be_a_field(studio: Studio) -> None:
    voice = await studio.voice()
    answer = await send(studio, voice, [("a.wav", GOOD)], manifest=json.dumps({"file": "a.wav", "text": "Ay."}))
    assert transcripts_of(answer) == {"a.wav": "Ay."}
    answer = await send(studio, voice, [("b.wav", GOOD)], manifest="b.wav,Bee.")
    assert refusal(answer) == (400, "invalid_request")
    assert "manifest, line 1" in message(answer)


async def test_a_form_that_is_not_one_of_recordings_is_refused(studio: Studio) -> None:
    path = f"/v1/voices/{await studio.voice()}/samples"
    no_form = await studio.http.post(path, json={"files": []})
    no_files = await studio.http.post(path, files={"manifest": ("m.csv", b"file,text\n")})
    unknown = await studio.http.post(path, files={"audio": ("a.wav", GOOD)})
    cut = await studio.http.post(
        path, content=b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nRIFF',
        headers={"content-type": "multipart/form-data; boundary=x"},
    )  # fmt: skip
    for answer, why in ((no_form, "multipart/form-data"), (no_files, "no recordings"), (unknown, "'audio'")):
        assert refusal(answer) == (400, "invalid_request")
        assert why in message(answer)
    assert refusal(cut) == (400, "invalid_request")


async def test_too_large_a_file_is_dropped_and_too_large_a_form_ends(open_studio: OpenStudio) -> None:
    async with open_studio(max_sample_bytes=60_000) as studio:
        voice = await studio.voice()
        answer = await send(studio, voice, [("big.wav", recording(2)), ("a.wav", GOOD)])
        assert [sample["file_name"] for sample in answer.json()["samples"]] == ["a.wav"]
        (rejected,) = answer.json()["rejected"]
        assert (rejected["file_name"], rejected["code"]) == ("big.wav", "recording_unfit")
        assert "more than 60000 bytes" in rejected["message"]
        try:
            answer = await send(studio, voice, [("a.wav", GOOD)] * 6)
        except httpx.NetworkError:
            pass  # the door was closed while the rest was on its way
        else:
            assert answer.status_code == 413
        assert len(studio.keys(voice)) == 1
        async with asyncio.timeout(HANG_S):
            while studio.waiting_files:
                await asyncio.sleep(0.02)


async def test_a_voice_has_only_so_many_recordings(open_studio: OpenStudio) -> None:
    async with open_studio(max_samples=2) as studio:
        voice = await studio.voice()
        answer = await send(studio, voice, [(f"{number}.wav", GOOD) for number in range(3)])
        assert [sample["file_name"] for sample in answer.json()["samples"]] == ["0.wav", "1.wav"]
        assert "at most 2" in answer.json()["rejected"][0]["message"]
        announced = await studio.http.post(
            f"/v1/voices/{voice}/uploads", json={"files": [{"file_name": "3.wav", "size_bytes": 9}]}
        )
        assert refusal(announced) == (400, "recording_unfit")


async def test_a_client_that_leaves_midway_leaves_nothing_behind(studio: Studio) -> None:
    voice = await studio.voice()
    address = urlsplit(studio.house.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n' + GOOD + b"\r\n"
    head = (
        f"POST /v1/voices/{voice}/samples HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
        f"Authorization: {studio.http.headers['authorization']}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    writer.write(head.encode() + 2 * part)
    await writer.drain()
    async with asyncio.timeout(HANG_S):
        while not studio.waiting_files:
            await asyncio.sleep(0.02)
        writer.close()
        await writer.wait_closed()
        while studio.waiting_files:
            await asyncio.sleep(0.02)
    assert studio.keys(voice) == []
    assert await studio.house.catalog.voices.samples(voice) == []


async def test_a_voice_deleted_during_an_upload_takes_it_along(studio: Studio) -> None:
    voice = await studio.voice()
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n' + GOOD + b"\r\n"

    async def body() -> AsyncIterator[bytes]:
        yield part
        async with asyncio.timeout(HANG_S):
            while not studio.waiting_files:
                await asyncio.sleep(0.02)
        assert (await studio.http.delete(f"/v1/voices/{voice}")).status_code == 200
        yield part + b"--x--\r\n"

    async with studio.house.holder_of(Scope.CLONE) as http:
        answer = await http.post(
            f"/v1/voices/{voice}/samples",
            content=body(),
            headers={"content-type": "multipart/form-data; boundary=x"},
        )
    assert refusal(answer) == (404, "not_found")
    assert studio.keys(voice) == []
    assert studio.waiting_files == []


async def test_a_recording_is_shown_transcribed_and_deleted_alone(studio: Studio) -> None:
    voice = await studio.voice()
    first, second = (await send(studio, voice, [("a.wav", GOOD), ("b.wav", GOOD)])).json()["samples"]
    path = f"/v1/voices/{voice}/samples/{first['id']}"
    assert (await studio.http.get(path)).json() == first
    changed = await studio.http.put(f"{path}/transcript", json={"text": " What I\nsaid. "})
    assert changed.json() == first | {"transcript": "What I said."}
    assert refusal(await studio.http.put(f"{path}/transcript", json={"text": " "})) == (400, "invalid_request")
    assert (await studio.http.delete(path)).json() == {"id": first["id"], "deleted": True}
    assert (await studio.http.get(f"/v1/voices/{voice}/samples")).json()["data"] == [second]
    assert len(studio.keys(voice)) == 1
    for method in ("GET", "DELETE"):
        assert refusal(await studio.http.request(method, path)) == (404, "not_found")


# Presigned uploads.


async def announce(studio: Studio, voice: str, *files: tuple[str, int]) -> list[dict[str, str]]:
    body = {"files": [{"file_name": name, "size_bytes": size} for name, size in files]}
    answer = await studio.http.post(f"/v1/voices/{voice}/uploads", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["method"] == "PUT"
    return answer.json()["uploads"]


async def put(url: str, data: bytes) -> int:
    async with httpx.AsyncClient(trust_env=False) as store:
        return (await store.put(url, content=data)).status_code


async def test_a_presigned_upload_becomes_a_recording_once(studio: Studio) -> None:
    voice = await studio.voice()
    first, second = await announce(studio, voice, ("../a.wav", len(GOOD)), ("b.wav", len(GOOD)))
    assert first["file_name"] == "a.wav"
    assert await put(first["url"], GOOD) == 200
    path = f"/v1/voices/{voice}/uploads/{first['id']}"
    kept = await studio.http.post(path, json={"transcript": "Ay."})
    assert kept.status_code == 200
    assert (kept.json()["id"], kept.json()["transcript"], kept.json()["size_bytes"]) == (first["id"], "Ay.", len(GOOD))
    assert (await studio.http.post(path)).json() == kept.json()
    assert (await studio.http.get(f"/v1/voices/{voice}/samples")).json()["data"] == [kept.json()]
    (sample,) = await studio.house.catalog.voices.samples(voice)
    assert studio.store.get(sample.object_key) == GOOD
    assert f"voices/{voice}/uploads/{first['id']}" not in studio.keys(voice)
    unsent = await studio.http.post(f"/v1/voices/{voice}/uploads/{second['id']}")
    assert refusal(unsent) == (404, "not_found")
    assert "has not been sent" in message(unsent)


@needs_signatures
async def test_an_address_takes_the_announced_size_alone(studio: Studio) -> None:
    voice = await studio.voice()
    (upload,) = await announce(studio, voice, ("a.wav", len(GOOD)))
    assert await put(upload["url"], GOOD + b"more") == 403
    assert await put(upload["url"].replace(upload["id"], "other"), GOOD) == 403


async def test_two_who_finish_one_upload_at_once_get_one_recording(studio: Studio) -> None:
    voice = await studio.voice()
    (upload,) = await announce(studio, voice, ("a.wav", len(GOOD)))
    await put(upload["url"], GOOD)
    path = f"/v1/voices/{voice}/uploads/{upload['id']}"
    answers = await asyncio.gather(studio.http.post(path), studio.http.post(path))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    (sample,) = await studio.house.catalog.voices.samples(voice)
    assert [key for key in studio.keys(voice) if "/samples/" in key] == [sample.object_key]


async def test_an_upload_that_is_no_audio_is_refused_and_removed(studio: Studio) -> None:
    voice = await studio.voice()
    (upload,) = await announce(studio, voice, ("words.wav", 8))
    await put(upload["url"], b"no audio")
    answer = await studio.http.post(f"/v1/voices/{voice}/uploads/{upload['id']}")
    assert refusal(answer) == (400, "recording_unfit")
    assert "words.wav is a text file" in message(answer)
    assert f"voices/{voice}/uploads/{upload['id']}" not in studio.keys(voice)


@pytest.mark.parametrize("upload_id", ["nothing", "up_0123456789abcdef_0000", "..%2F..%2Fx"])
async def test_an_upload_that_was_not_announced_is_not_found(studio: Studio, upload_id: str) -> None:
    voice = await studio.voice()
    answer = await studio.http.post(f"/v1/voices/{voice}/uploads/{upload_id}")
    assert answer.status_code == 404


async def test_what_is_too_large_is_refused_before_it_is_sent(open_studio: OpenStudio) -> None:
    async with open_studio(max_sample_bytes=60_000) as studio:
        voice = await studio.voice()
        body = {"files": [{"file_name": "big.wav", "size_bytes": 60_001}]}
        answer = await studio.http.post(f"/v1/voices/{voice}/uploads", json=body)
        assert refusal(answer) == (400, "recording_unfit")
        assert "big.wav has 60001 bytes" in message(answer)


async def test_a_transcript_in_another_encoding_is_refused_with_its_line_and_the_recording_is_kept(
    studio: Studio,
) -> None:
    voice = await studio.voice()
    words = "One.\nZwei Grüße.\n".encode("latin-1")
    answer = await send(studio, voice, [("a.wav", GOOD), ("a.txt", words)])
    assert transcripts_of(answer) == {"a.wav": None}
    (rejected,) = answer.json()["rejected"]
    assert rejected["message"] == "a.txt, line 2: it is not UTF-8; save it as UTF-8"
    manifest = {"manifest": ("manifest.csv", "file,text\na.wav,Grüße\n".encode("latin-1"))}
    answer = await studio.http.post(f"/v1/voices/{voice}/samples", files={"files": ("a.wav", GOOD), **manifest})
    assert (answer.status_code, "manifest.csv, line 2" in message(answer)) == (400, True)
