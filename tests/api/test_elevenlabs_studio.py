"""ElevenLabs' studio projects: narrations, seen through their API."""

from __future__ import annotations

import json

import pytest

from tests.support.library import AUDIO, Library

pytestmark = pytest.mark.anyio

PROJECTS = "/v1/studio/projects"
FORM = {"name": "A House", "default_paragraph_voice_id": "slt", "default_model_id": "eleven_multilingual_v2"}
CONTENT = [
    {"name": "One", "blocks": [{"sub_type": "p", "nodes": [{"type": "tts_node", "text": "It was <dark> & still."}]}]},
    {
        "name": "Two",
        "blocks": [
            {"nodes": [{"text": "He said:", "voice_id": "slt"}, {"text": "Who is there?", "voice_id": "rms"}]},
        ],
    },
]


async def test_a_project_is_made_of_chapters_of_blocks_each_voice_with_its_own_words(library: Library) -> None:
    form = FORM | {"from_content_json": json.dumps(CONTENT), "author": "Poe", "quality_preset": "ultra"}
    answer = await library.http.post(PROJECTS, data=form, files={"none": b""})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-carillon-ignored"] == "quality_preset"
    project = answer.json()["project"]
    assert (project["name"], project["author"], project["state"]) == ("A House", "Poe", "in_queue")
    assert not project["can_be_downloaded"]
    narration = await library.book.get(project["project_id"])
    assert (narration.voice, set(narration.voices), narration.format) == ("slt", {"slt", "rms"}, "mp3")
    assert b"It was &lt;dark&gt; &amp; still." in library.store.get(narration.source.key)
    assert [one["project_id"] for one in (await library.http.get(PROJECTS)).json()["projects"]] == [narration.id]


async def test_a_document_becomes_a_project(library: Library) -> None:
    files = {"from_document": ("owls.md", b"# One\n\nIt was dark.\n\n# Two\n\nIt was not.")}
    answer = await library.http.post(PROJECTS, data=FORM, files=files)
    assert answer.status_code == 200, answer.text
    narration = await library.book.get(answer.json()["project"]["project_id"])
    assert narration.source.kind == "markdown"


async def test_a_finished_project_has_one_snapshot_which_is_its_file(library: Library) -> None:
    narration = await library.completed(format="mp3")
    path = f"{PROJECTS}/{narration.id}"
    project = (await library.http.get(path)).json()
    assert (project["state"], project["can_be_downloaded"]) == ("default", True)
    assert [chapter["state"] for chapter in project["chapters"]] == ["default", "default"]
    (snapshot,) = (await library.http.get(f"{path}/snapshots")).json()["snapshots"]
    address = f"{path}/snapshots/{snapshot['project_snapshot_id']}"
    assert (await library.http.get(address)).json()["audio_duration_secs"] == 30.0
    streamed = await library.http.post(f"{address}/stream", json={"convert_to_mpeg": False})
    assert (streamed.status_code, streamed.content) == (200, AUDIO)
    assert (await library.http.post(f"{path}/snapshots/other/stream")).status_code == 404
    assert (await library.http.post(f"{path}/convert")).json() == {"status": "ok"}
    assert (await library.http.delete(path)).json() == {"status": "ok"}
    assert (await library.http.get(path)).status_code == 404


async def test_converting_goes_on_with_one_that_failed(library: Library) -> None:
    narration = await library.failed((await library.queued())["id"])
    assert (await library.http.post(f"{PROJECTS}/{narration.id}/convert")).json() == {"status": "ok"}
    assert (await library.book.get(narration.id)).state == "queued"


@pytest.mark.parametrize(
    ("form", "param"),
    [
        (FORM | {"from_url": "https://example.org/"}, "from_url"),
        (FORM, "from_document"),
        ({"name": "A House", "from_content_json": "[]"}, "default_paragraph_voice_id"),
        (FORM | {"from_content_json": "[{]"}, None),
        (FORM | {"from_content_json": "[]"}, "file"),
        (FORM | {"from_content_json": json.dumps(CONTENT), "default_paragraph_voice_id": "nobody"}, "voice"),
    ],
)
async def test_what_cannot_be_read_is_refused_in_their_words(
    library: Library, form: dict[str, str], param: str | None
) -> None:
    answer = await library.http.post(PROJECTS, data=form, files={"none": b""})
    assert answer.status_code in (400, 404, 422), answer.text
    assert answer.json()["detail"]["param"] == param
