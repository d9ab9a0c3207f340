"""The files of a finished narration: ranges as players ask for them, captions, chapters, links without a key."""

from __future__ import annotations

import asyncio
from itertools import repeat

import httpx
import pytest
from starlette.types import Message

from app.api.narration_files import StoredResponse, byte_range, content_disposition
from app.narration.models import Narration
from tests.support.deadlines import HANG_S
from tests.support.library import AUDIO, Library, error_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def narration(library: Library) -> Narration:
    return await library.completed()


def audio_path(narration: Narration) -> str:
    return f"/v1/narrations/{narration.id}/audio"


async def test_the_whole_file_comes_with_a_name_and_says_that_it_has_ranges(
    library: Library, narration: Narration
) -> None:
    answer = await library.http.get(audio_path(narration))
    assert (answer.status_code, answer.content == AUDIO) == (200, True)
    assert answer.headers["content-type"] == "audio/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    assert 'filename="A House.m4b"' in answer.headers["content-disposition"]


async def test_the_head_alone_is_told_without_the_body(library: Library, narration: Narration) -> None:
    answer = await library.http.head(audio_path(narration))
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(AUDIO))
    assert answer.headers["etag"] == (await library.http.get(audio_path(narration))).headers["etag"]
    for asked in ("bytes=10-19", "bytes=99999999-"):  # only GET has ranges (RFC 9110, 14.2)
        part = await library.http.head(audio_path(narration), headers={"Range": asked})
        assert (part.status_code, part.headers["content-length"]) == (200, str(len(AUDIO)))


RANGES = [
    ("bytes=0-0", 0, 1),
    ("bytes=1000000-1100000", 1_000_000, 1_100_001),
    (f"bytes={len(AUDIO) - 5}-", len(AUDIO) - 5, len(AUDIO)),
    ("bytes=-7", len(AUDIO) - 7, len(AUDIO)),
    ("bytes=5-99999999", 5, len(AUDIO)),
    ("bytes=-99999999", 0, len(AUDIO)),
]
"""What is asked for, and the first byte and the one after the last that are given."""


async def test_a_range_is_answered_with_206_and_where_it_lies(library: Library, narration: Narration) -> None:
    for asked, start, end in RANGES:
        answer = await library.http.get(audio_path(narration), headers={"Range": asked})
        assert answer.status_code == 206
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(AUDIO)}"
        assert answer.content == AUDIO[start:end]


async def test_a_range_beyond_the_end_is_answered_with_416_and_the_size(library: Library, narration: Narration) -> None:
    for asked in (f"bytes={len(AUDIO)}-", "bytes=-0"):
        answer = await library.http.get(audio_path(narration), headers={"Range": asked})
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(AUDIO)}")


@pytest.mark.parametrize(
    "asked", ["bytes=5-1", "bytes=0-1,5-9", "bytes=-", "items=0-5", "bytes=a-b", f"bytes={'9' * 5000}-"]
)
def test_a_range_that_is_not_honoured_is_no_range(asked: str) -> None:
    assert byte_range(asked, 100) is None


async def test_a_range_of_another_file_than_this_gives_the_whole(library: Library, narration: Narration) -> None:
    etag = (await library.http.head(audio_path(narration))).headers["etag"]
    for if_range, status in ((etag, 206), ('"another"', 200), ("Mon, 23 Nov 2026 00:00:00 GMT", 200)):
        headers = {"Range": "bytes=0-9", "If-Range": if_range}
        assert (await library.http.get(audio_path(narration), headers=headers)).status_code == status


CONDITIONS = [
    ("If-None-Match", "{etag}", 304),
    ("If-None-Match", "W/{etag}", 304),
    ("If-None-Match", '"another", W/{etag}', 304),
    ("If-None-Match", "*", 304),
    ("If-None-Match", '"another"', 206),
    ("If-Match", "{etag}", 206),
    ("If-Match", '"another",{etag}', 206),
    ("If-Match", "*", 206),
    ("If-Match", '"another"', 412),
    ("If-Match", "W/{etag}", 412),
]


async def test_who_has_the_file_or_wants_another_gets_no_body(library: Library, narration: Narration) -> None:
    etag = (await library.http.head(audio_path(narration))).headers["etag"]
    for header, value, status in CONDITIONS:
        headers = {header: value.format(etag=etag), "Range": "bytes=0-9"}
        answer = await library.http.get(audio_path(narration), headers=headers)
        assert (answer.status_code, answer.headers["etag"]) == (status, etag), (header, value)
        assert answer.content == (AUDIO[:10] if status == 206 else b"")


async def test_a_file_that_was_made_again_has_another_tag_and_the_old_one_is_served_until_then(
    library: Library, narration: Narration
) -> None:
    before = await library.http.head(audio_path(narration))
    await library.http.post(f"/v1/narrations/{narration.id}/segments/3/regenerate")
    meanwhile = await library.http.get(audio_path(narration))
    assert (meanwhile.headers["etag"], meanwhile.content == AUDIO) == (before.headers["etag"], True)
    step = await library.steps.claim(narration.id)
    assert step
    await library.steps.finish_chapter(step, step.narration.chapters[1], result_key="k")
    await library.mastered(await library.book.get(narration.id), AUDIO[::-1])
    after = await library.http.get(audio_path(narration))
    assert after.content == AUDIO[::-1]
    assert after.headers["etag"] != before.headers["etag"]


async def test_there_is_no_file_before_it_is_made_and_the_answer_says_how_far_it_is(library: Library) -> None:
    narration = await library.planned((await library.queued())["id"])
    for file in ("audio", "captions.vtt", "captions.srt", "chapters"):
        answer = await library.http.get(f"/v1/narrations/{narration.id}/{file}")
        assert (answer.status_code, error_of(answer)["code"]) == (409, "conflict")
        assert "is rendering, 0 of 3 segments are spoken" in error_of(answer)["message"]


async def test_a_file_that_the_store_has_lost_is_told_before_the_answer_begins(
    library: Library, narration: Narration
) -> None:
    assert narration.output
    library.store.delete(narration.output.key)
    answer = await library.http.get(audio_path(narration))
    assert (answer.status_code, error_of(answer)["code"]) == (404, "object_missing")


async def test_a_file_that_breaks_off_in_the_store_breaks_off_at_the_client(
    library: Library, narration: Narration
) -> None:
    assert narration.output
    library.store.put(narration.output.key, AUDIO[: len(AUDIO) // 2])
    with pytest.raises(httpx.RemoteProtocolError):
        await library.http.get(audio_path(narration))


async def test_a_client_that_leaves_ends_the_reading() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        while len(sent) < 3:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    endless = StoredResponse(b"a", repeat(b"a"), status=200, headers={})
    async with asyncio.timeout(HANG_S):
        await endless({"type": "http"}, receive, send)
    assert sent[-1]["more_body"]


async def test_captions_are_bound_to_the_segments(library: Library, narration: Narration) -> None:
    vtt = await library.http.get(f"/v1/narrations/{narration.id}/captions.vtt")
    assert vtt.headers["content-type"].startswith("text/vtt")
    assert "00:00:10.000 --> 00:00:20.000\n<v hero>Who is there?</v>" in vtt.text
    srt = await library.http.get(f"/v1/narrations/{narration.id}/captions.srt")
    assert srt.headers["content-type"].startswith("application/x-subrip")
    assert "00:00:20,000 --> 00:00:30,000\nNobody answered." in srt.text


async def test_captions_are_told_by_word_where_that_is_asked_for(library: Library, narration: Narration) -> None:
    address = f"/v1/narrations/{narration.id}/captions"
    vtt = await library.http.get(f"{address}.vtt", params={"by": "word"})
    assert "00:00:10.000 --> 00:00:20.000\n<v hero>Who <00:00:12.727>is <00:00:14.545>there?</v>" in vtt.text
    srt = await library.http.get(f"{address}.srt", params={"by": "word"})
    assert "00:00:24,000 --> 00:00:30,000\nanswered." in srt.text
    assert (await library.http.get(f"{address}.srt", params={"by": "letter"})).status_code == 400


async def test_what_is_beside_the_audio_has_a_head_too(library: Library, narration: Narration) -> None:
    for file in ("captions.vtt", "captions.srt", "chapters"):
        path = f"/v1/narrations/{narration.id}/{file}"
        head, whole = await library.http.head(path), await library.http.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))


async def test_chapters_are_told_in_seconds(library: Library, narration: Narration) -> None:
    told = (await library.http.get(f"/v1/narrations/{narration.id}/chapters")).json()
    assert told["title"] == "A House"
    assert [(one["number"], one["title"], one["start_s"], one["end_s"]) for one in told["chapters"]] == [
        (1, "One", 0.0, 20.0), (2, "Two", 20.0, 30.0),
    ]  # fmt: skip
    assert told["chapters"][1]["startTime"] == 20.0


# Links.


async def test_links_need_no_key_and_open_nothing_else(library: Library, narration: Narration) -> None:
    links = (await library.http.get(f"/v1/narrations/{narration.id}")).json()["links"]
    other = await library.completed()
    async with httpx.AsyncClient(base_url=library.house.url, trust_env=False) as stranger:
        for name in ("audio", "captions_vtt", "captions_srt", "chapters"):
            assert (await stranger.get(links[name])).status_code == 200, name
        part = await stranger.get(links["audio"], headers={"Range": "bytes=0-3"})
        assert (part.status_code, part.content) == (206, AUDIO[:4])
        _, _, token = links["audio"].partition("?token=")
        for path in (f"/v1/narrations/{other.id}/audio?token={token}", f"{audio_path(narration)}?token=forged"):
            assert (await stranger.get(path)).status_code == 401
        for path in (audio_path(narration), f"/v1/narrations/{narration.id}?token={token}"):
            assert (await stranger.get(path)).status_code == 401


# Names.


@pytest.mark.parametrize(
    ("title", "header"),
    [
        ("A House", "attachment; filename=\"A House.m4b\"; filename*=UTF-8''A%20House.m4b"),
        ("../../etc/passwd", "attachment; filename=\"etc passwd.m4b\"; filename*=UTF-8''etc%20passwd.m4b"),
        (
            'a"; filename="x\r\n',
            "attachment; filename=\"a ; filename= x.m4b\"; filename*=UTF-8''a%20%3B%20filename%3D%20x.m4b",
        ),
        ("Über", "attachment; filename=\"ber.m4b\"; filename*=UTF-8''%C3%9Cber.m4b"),
        ("家", "attachment; filename=\"narration.m4b\"; filename*=UTF-8''%E5%AE%B6.m4b"),
        ("", "attachment; filename=\"narration.m4b\"; filename*=UTF-8''narration.m4b"),
    ],
)
def test_a_title_becomes_a_name_that_every_file_system_takes(title: str, header: str) -> None:
    assert content_disposition(title, "m4b") == header
