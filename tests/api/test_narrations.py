"""Narrations over HTTP: what is asked for before one is queued, how it is told, stopped, gone on with, read again."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.api.conftest import OpenLibrary
from tests.support.fake_worker import STAND_IN
from tests.support.library import PNG, TEXT, Library, error_of
from tests.support.published import publish

pytestmark = pytest.mark.anyio

NOWHERE = "https://example.org/"


async def published(library: Library, name: str) -> str:
    """The id of a clone that can be spoken with."""
    return (await publish(library.house.catalog, name, uri="s3://b/p/", sha256={})).id


@pytest.fixture(scope="module")
def cover() -> bytes:
    """A small PNG."""
    pixels = zlib.compress(b"".join(b"\0" + bytes(3 * 8) for _ in range(8)))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return PNG + b"".join(_chunk(name, data) for name, data in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


# Handing in.


async def test_a_text_is_kept_and_queued_for_rendering(library: Library, valkey: str) -> None:
    told = await library.queued(cast={"Hero": "rms"}, format="mp3", options={"retakes": 1}, title="A House")
    assert (told["state"], told["over"], told["format"], told["title"]) == ("queued", False, "mp3", "A House")
    assert (told["voice"], told["cast"], told["model"]) == ("slt", {"hero": "rms"}, "standin")
    assert told["options"]["retakes"] == 1
    assert (told["findings"], told["links"], told["eta_s"], told["cost_usd"]) == ([], None, None, None)
    narration = await library.book.get(told["id"])
    assert set(narration.voices) == {"slt", "rms"}
    assert library.store.get(narration.source.key) == TEXT.encode()
    assert (await library.http.get(f"/v1/narrations/{told['id']}")).json() == told
    async with Redis.from_url(valkey) as redis:
        [message] = await redis.lrange("render", 0, -1)  # type: ignore[misc]
    assert json.loads(message)["headers"]["task"] == "carillon.narrate"


async def test_no_address_of_the_store_is_told(library: Library) -> None:
    narration = await library.completed()
    told = (await library.http.get(f"/v1/narrations/{narration.id}")).text
    assert narration.output
    for hidden in (narration.source.key, narration.script_key, narration.output.key, narration.output.timeline_key):
        assert str(hidden) not in told


async def test_a_file_is_known_by_its_name_and_kept_with_its_cover(library: Library, cover: bytes) -> None:
    answer = await library.sent(("../My House.md", TEXT.encode()), cover=cover)
    assert answer.status_code == 202, answer.text
    narration = await library.book.get(answer.json()["id"])
    assert (narration.source.kind, narration.source.file_name) == ("markdown", "My House.md")
    assert (narration.title, answer.json()["has_cover"]) == ("My House", True)
    assert narration.source.cover_key
    assert library.store.get(narration.source.cover_key) == cover


def epub(chapters: dict[str, str], cover: bytes | None = None) -> bytes:
    """A small EPUB 3: a document for each chapter, by title."""
    names = [f"c{number}.xhtml" for number in range(len(chapters))]
    items = [f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in names]
    spine = [f'<itemref idref="{name}"/>' for name in names]
    if cover is not None:
        items.append('<item id="cover" href="cover.png" media-type="image/png" properties="cover-image"/>')
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">x</dc:identifier>'
        "<dc:title>The Book</dc:title><dc:language>en</dc:language></metadata>"
        f"<manifest>{''.join(items)}</manifest>"
        f"<spine>{''.join(spine)}</spine></package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
        '<rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("book.opf", package)
        for name, (title, text) in zip(names, chapters.items(), strict=True):
            body = f"<h1>{title}</h1><p>{text}</p>"
            archive.writestr(name, f'<html xmlns="http://www.w3.org/1999/xhtml"><body>{body}</body></html>')
        if cover is not None:
            archive.writestr("cover.png", cover)
    return packed.getvalue()


async def test_an_epub_is_known_by_its_bytes_and_brings_its_title_and_cover(library: Library, cover: bytes) -> None:
    answer = await library.sent(("download", epub({"One": "Hello.", "Two": "Good night."}, cover)))
    assert answer.status_code == 202, answer.text
    narration = await library.book.get(answer.json()["id"])
    assert (narration.source.kind, narration.title) == ("epub", "The Book")
    assert narration.source.cover_key
    assert library.store.get(narration.source.cover_key) == cover


async def test_a_text_can_have_a_cover(library: Library, cover: bytes) -> None:
    fields = json.dumps({"voice": "slt", "text": "Hello there."})
    answer = await library.http.post(
        "/v1/narrations", data={"narration": fields}, files={"cover": ("cover.png", cover)}
    )
    assert (answer.status_code, answer.json()["has_cover"]) == (202, True)


async def test_the_narrator_may_be_one_of_the_cast(library: Library) -> None:
    answer = await library.http.post("/v1/narrations", json={"cast": {"Narrator": "rms"}, "text": "Hello there."})
    assert (answer.status_code, answer.json()["voice"], answer.json()["cast"]) == (202, "rms", {})


async def test_a_character_without_a_voice_is_told_and_read_by_the_narrator(library: Library) -> None:
    [finding] = (await library.queued())["findings"]
    assert (finding["code"], finding["severity"], finding["chapter"]) == ("uncast_character", "check", 1)
    assert "'hero'" in finding["message"]


async def test_a_text_in_another_language_than_its_voices_is_told(library: Library) -> None:
    told = await library.queued(cast={"hero": "rms"}, options={"language": "de"})
    assert [finding["code"] for finding in told["findings"]] == ["language"]
    assert (await library.queued(cast={"hero": "rms"}, options={"language": "en-GB"}))["findings"] == []


async def test_voices_keep_the_version_they_had_when_the_text_was_handed_in(library: Library) -> None:
    voice_id = await published(library, "Mary")
    narration = await library.book.get((await library.queued(cast={"hero": "Mary"}))["id"])
    adapter = narration.voices["Mary"].adapter
    assert adapter and (adapter.voice_id, adapter.version) == (voice_id, 1)


# What is refused, with the place.


REFUSALS: list[tuple[dict[str, Any], int, str, list[str]]] = [
    ({"voice": "nobody"}, 404, "unknown_voice", ["voice: voice 'nobody' does not exist", "rms"]),
    ({"cast": {"hero": "nobody"}}, 404, "unknown_voice", ["cast.hero: voice 'nobody'"]),
    ({"cast": {"villain": "rms"}}, 400, "invalid_request", ["cast.villain: no character", "its characters are: hero"]),
    ({"text": "# One\n\nA.\n\n[voice: nobody] B."}, 404, "unknown_voice", ["chapter 1, paragraph 2", "'nobody'"]),
    ({"model": "none"}, 404, "unknown_model", ["standin"]),
    ({"cast": {"Hero": "rms", "hero": "slt"}}, 400, "invalid_request", ["cast", "are one"]),
    ({"cast": {"narrator": "rms"}}, 400, "invalid_request", ["the cast's narrator is 'rms'"]),
    ({"voice": None}, 400, "invalid_request", ["name the narrator's voice"]),
    ({"voices": "slt"}, 400, "invalid_request", ["voices", "no such field"]),
    ({"format": "aac"}, 400, "invalid_request", ["format", "'m4b'"]),
    ({"kind": "epub"}, 400, "invalid_request", ["kind"]),
    ({"options": {"pauses": {"chapter_s": 31}}}, 400, "invalid_request", ["options.pauses.chapter_s"]),
    ({"options": {"speed": 2}}, 400, "invalid_request", ["options.speed"]),
    ({"title": "A", "options": {"title": "B"}}, 400, "invalid_request", ["title", "give one"]),
    ({"options": {"replacements": {"a\0": "b"}}}, 400, "invalid_request", ["NUL"]),
    ({"webhook_url": NOWHERE}, 400, "invalid_request", ["CARILLON_CLONING__WEBHOOK_SECRET"]),
    ({"text": " \n"}, 400, "manuscript_unfit", []),
    ({"text": None}, 400, "invalid_request", ["text: there is none"]),
]
"""Fields, and the status, the code and words of the message that answer them."""


async def test_what_cannot_be_honoured_is_refused_with_its_place(library: Library) -> None:
    for fields, status, code, words in REFUSALS:
        wanted = {"voice": "slt", "text": TEXT, "kind": "markdown"} | fields
        answer = await library.http.post("/v1/narrations", json=wanted)
        assert (answer.status_code, error_of(answer)["code"]) == (status, code), fields
        assert all(word in error_of(answer)["message"] for word in words), answer.text
    assert await library.book.all() == []
    assert list(library.store.keys("")) == []


async def test_a_body_that_is_no_narration_is_refused(library: Library) -> None:
    for body in ("", "[]", "{", '{"voice": "slt", "text": "\\ud800"}', '{"voice": 1, "text": "Hi."}'):
        answer = await library.http.post("/v1/narrations", content=body)
        assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request"), body


async def test_all_voices_that_are_wrong_are_told_at_once(library: Library) -> None:
    text = TEXT + "\n\n[voice: stranger] Hush."
    answer = await library.http.post(
        "/v1/narrations",
        json={"voice": "nobody", "text": text, "kind": "markdown", "cast": {"villain": "rms", "hero": "noone"}},
    )
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request")
    for place in ("voice: ", "cast.villain: ", "cast.hero: ", "chapter 2, paragraph 2, [voice: stranger]"):
        assert place in error_of(answer)["message"]


async def test_voices_of_two_models_do_not_speak_in_one_narration(library: Library) -> None:
    other = STAND_IN.model_copy(update={"name": "other", "voices": ("awb",)})
    async with library.house.worker(id="w-2", card=other):
        answer = await library.http.post(
            "/v1/narrations", json={"voice": "slt", "text": TEXT, "kind": "markdown", "cast": {"hero": "awb"}}
        )
    assert (answer.status_code, error_of(answer)["param"]) == (404, "cast.hero")
    assert "'awb' is a voice of 'other'" in error_of(answer)["message"]


async def test_a_text_above_the_limit_is_told_with_both_sizes(open_library: OpenLibrary) -> None:
    async with open_library(max_text_bytes=1024) as library:
        answer = await library.http.post("/v1/narrations", json={"voice": "slt", "text": "ü" * 513})
        assert (answer.status_code, error_of(answer)["code"]) == (400, "manuscript_unfit")
        assert "1026 bytes; at most 1024" in error_of(answer)["message"]


async def test_a_body_that_no_text_can_need_is_not_read_to_its_end(open_library: OpenLibrary) -> None:
    async with open_library(max_text_bytes=1024) as library:
        answer = await library.http.post("/v1/narrations", json={"voice": "slt", "text": "a" * 5 * 2**20})
        assert answer.status_code == 413


async def test_a_file_above_the_limit_is_told_with_the_limit(open_library: OpenLibrary) -> None:
    async with open_library(max_file_bytes=2000, max_cover_bytes=1024) as library:
        answer = await library.sent(("a.txt", b"a " * 1001))
        assert (answer.status_code, error_of(answer)["code"]) == (400, "manuscript_unfit")
        assert "a.txt has more than 2000 bytes" in error_of(answer)["message"]
        answer = await library.sent(("a.txt", b"Hello."), cover=PNG + bytes(1024))
        assert "cover.png has more than 1024 bytes" in error_of(answer)["message"]


async def test_a_cover_that_is_no_image_is_refused(library: Library) -> None:
    answer = await library.sent(("a.txt", b"Hello."), cover=b"GIF89a, as it were")
    assert (answer.status_code, error_of(answer)["code"], error_of(answer)["param"]) == (
        400, "manuscript_unfit", "cover",
    )  # fmt: skip


async def test_a_cover_for_a_file_that_has_no_place_for_one_is_refused(library: Library, cover: bytes) -> None:
    answer = await library.sent(("a.txt", b"Hello."), cover=cover, format="wav")
    assert (answer.status_code, error_of(answer)["param"]) == (400, "cover")


@pytest.mark.parametrize("name", ["broken.epub", "broken.txt"])
async def test_a_corrupt_epub_is_refused_by_its_name(library: Library, name: str) -> None:
    answer = await library.sent((name, b"PK\x03\x04 and no more"))
    assert (answer.status_code, error_of(answer)["code"]) == (400, "manuscript_unfit")
    assert name in error_of(answer)["message"]


async def test_an_epub_that_explodes_is_refused_by_its_name(open_library: OpenLibrary) -> None:
    async with open_library(max_text_bytes=100_000, max_file_bytes=100_000) as library:
        bomb = epub({"One": "a " * 5_000_000})
        assert len(bomb) < 100_000
        answer = await library.sent(("bomb.epub", bomb))
        assert (answer.status_code, error_of(answer)["code"]) == (400, "manuscript_unfit")
        assert "bomb.epub" in error_of(answer)["message"]


async def test_an_empty_chapter_is_told_by_its_title_and_the_rest_is_read(library: Library) -> None:
    told = await library.queued(text="# One\n\nHello.\n\n# Two\n\n* * *\n\n![](a.png)\n\n# Three\n\nGood night.")
    [_, finding] = told["findings"]
    assert finding["code"] == "empty_chapter"
    assert "Two" in finding["message"]


async def test_what_the_text_is_can_be_said_as_everywhere(library: Library) -> None:
    told = await library.queued(text="# One\n\nHello.", options={"markup": "markdown"})
    assert told["source"]["kind"] == "markdown"
    told = await library.queued(text="# One\n\nHello.", kind=None, options={"markup": "plain", "code": "read"})
    assert told["source"]["kind"] == "text"


@pytest.mark.parametrize("name", ["book.pdf", "book.rtf", "book.odt"])
async def test_what_is_not_read_here_is_named(library: Library, name: str) -> None:
    answer = await library.sent((name, b"%PDF-1.7 and more" if name.endswith("pdf") else b"{\\rtf1 no}"))
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (400, "manuscript_unfit")
    assert name in error["message"] and "save it as EPUB" in error["message"]


FORMS: list[tuple[dict[str, str], dict[str, Any], str]] = [
    ({}, {"file": ("a.txt", b"Hello.")}, "narration: the form has it 0 times"),
    ({"narration": "{"}, {"file": ("a.txt", b"Hello.")}, "this is no JSON"),
    ({"narration": '{"voice": "slt"}'}, {"cover": ("c.png", PNG)}, "file: the form has none"),
    (
        {"narration": '{"voice": "slt", "text": "Hi."}'},
        {"file": ("a.txt", b"Hello.")},
        "text: the form has a file as well",
    ),
    ({"narration": '{"voice": "slt"}', "book": "x"}, {"file": ("a.txt", b"Hello.")}, "'book' is no field"),
    ({"narration": '{"voice": "slt", "kind": "text"}'}, {"file": ("a.epub", b"PK\x03\x04")}, "kind: a.epub is no"),
]
"""Forms that are not understood, and what is said of each."""


async def test_a_form_that_is_not_understood_is_refused(library: Library) -> None:
    for data, files, words in FORMS:
        answer = await library.http.post("/v1/narrations", data=data, files=files)
        assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request"), words
        assert words in error_of(answer)["message"]


async def test_a_form_with_two_files_is_refused(library: Library) -> None:
    files = [("file", ("a.txt", b"Hello.")), ("file", ("b.txt", b"Hello."))]
    answer = await library.http.post("/v1/narrations", data={"narration": '{"voice": "slt"}'}, files=files)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "file")
