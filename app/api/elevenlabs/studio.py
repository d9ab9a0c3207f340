"""ElevenLabs' studio projects, on our narrations. The scope is `narrate`.

    create      a narration of `from_document`, or of `from_content_json`: chapters of blocks of voices' words
    convert     goes on with one that failed; a project is read as soon as it is made, so that there is nothing to start
    snapshots   one, once there is a file: an MP3, which `stream` sends

The same narrations are seen through both APIs. What cannot be followed is named in `X-Carillon-Ignored`; no address is
fetched.
"""

from __future__ import annotations

import asyncio
import html
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.api.access import requires
from app.api.dialects import ignored_header
from app.api.elevenlabs.wire import ElevenLabsRoute, TheServices, api_key, model_meant
from app.api.forms import Form, FormLimits, received_form
from app.api.stored_response import StoredResponse
from app.errors import InvalidRequest, NotFound
from app.narration.models import Narration, NarrationState, SourceKind
from app.narration.submission import NewNarration, Submission
from app.platform.api_keys import ApiKey
from app.platform.file_names import shown_name
from app.platform.workspace import workspace
from app.speech.choices import NarrationFormat, Scope
from app.speech.field_errors import first_fault

MAX_FIELDS = 64
FOLLOWED = frozenset(
    {
        "name",
        "title",
        "author",
        "language",
        "default_title_voice_id",
        "default_paragraph_voice_id",
        "default_model_id",
        "from_content_json",
        "callback_url",
        "apply_text_normalization",
        "auto_convert",
    }
)

Narrator = Annotated[ApiKey | None, Depends(requires(Scope.NARRATE, api_key))]

router = APIRouter(route_class=ElevenLabsRoute, include_in_schema=False)


class Node(BaseModel):
    """Words of one voice; None: the project's."""

    model_config = ConfigDict(extra="ignore")

    text: str = ""
    voice_id: str | None = Field(default=None, max_length=128)


class ContentBlock(BaseModel):
    """A paragraph."""

    model_config = ConfigDict(extra="ignore")

    nodes: list[Node] = []


class ContentChapter(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str = ""
    blocks: list[ContentBlock] = []


@router.post("/v1/studio/projects")
async def create(request: Request, response: Response, services: TheServices, _: Narrator) -> dict[str, Any]:
    """A project, which is read at once."""
    limits = services.settings.narration
    form_limits = FormLimits(
        file_bytes=limits.max_file_bytes,
        total_bytes=2 * limits.max_file_bytes + limits.max_text_bytes,
        parts=MAX_FIELDS,
    )
    async with (
        received_form(request, services.uploads_directory, form_limits) as form,
        workspace(services.uploads_directory) as directory,
    ):
        submission = await asyncio.to_thread(_submission, form, directory, limits.max_file_bytes)
        narration = await services.submissions.accept(submission)
    await services.audit("narration.create", narration.id)
    response.headers.update(ignored_header(sorted({name for name, value in form.fields if value} - FOLLOWED)))
    return {"project": _project(narration)}


@router.get("/v1/studio/projects")
async def list_projects(services: TheServices, _: Narrator) -> dict[str, Any]:
    return {"projects": [_project(one) for one in await services.catalog.narrations.all(limit=100)]}


@router.get("/v1/studio/projects/{project_id}")
async def one_project(project_id: str, services: TheServices, _: Narrator) -> dict[str, Any]:
    """A project with its chapters."""
    narration = await services.catalog.narrations.get(project_id)
    listed = {name: [] for name in ("assets", "voices", "pronunciation_dictionary_versions")}
    named = {"quality_preset": "standard", "apply_text_normalization": "auto", "pronunciation_dictionary_locators": []}
    return {**_project(narration), **listed, **named, "chapters": _chapters(narration)}


@router.delete("/v1/studio/projects/{project_id}")
async def delete(project_id: str, services: TheServices, _: Narrator) -> dict[str, str]:
    await services.narrations.delete(project_id)
    await services.audit("narration.delete", project_id)
    return {"status": "ok"}


@router.post("/v1/studio/projects/{project_id}/convert")
async def convert(project_id: str, services: TheServices, _: Narrator) -> dict[str, str]:
    """Go on with one that failed or was cancelled; any other is read already, or has been."""
    narration = await services.catalog.narrations.get(project_id)
    if narration.state in (NarrationState.FAILED, NarrationState.CANCELLED):
        await services.narrations.resume(project_id)
        await services.audit("narration.resume", project_id)
    return {"status": "ok"}


@router.get("/v1/studio/projects/{project_id}/chapters")
async def chapters(project_id: str, services: TheServices, _: Narrator) -> dict[str, Any]:
    return {"chapters": _chapters(await services.catalog.narrations.get(project_id))}


@router.get("/v1/studio/projects/{project_id}/snapshots")
async def snapshots(project_id: str, services: TheServices, _: Narrator) -> dict[str, Any]:
    narration = await services.catalog.narrations.get(project_id)
    return {"snapshots": [_snapshot(narration)] if narration.output else []}


@router.get("/v1/studio/projects/{project_id}/snapshots/{snapshot_id}")
async def one_snapshot(project_id: str, snapshot_id: str, services: TheServices, _: Narrator) -> dict[str, Any]:
    narration = await _with_snapshot(project_id, snapshot_id, services)
    assert narration.output
    return {**_snapshot(narration), "character_alignments": [], "audio_duration_secs": narration.output.duration_s}


@router.post("/v1/studio/projects/{project_id}/snapshots/{snapshot_id}/stream")
async def stream(project_id: str, snapshot_id: str, services: TheServices, _: Narrator) -> Response:
    """The finished file."""
    output = (await _with_snapshot(project_id, snapshot_id, services)).output
    assert output
    pieces = services.store.read_range(output.key, 0, output.size_bytes)
    first = await asyncio.to_thread(next, pieces, b"")
    headers = {"content-type": output.content_type, "content-length": str(output.size_bytes)}
    return StoredResponse(first, pieces, status=200, headers=headers)


async def _with_snapshot(project_id: str, snapshot_id: str, services: TheServices) -> Narration:
    narration = await services.catalog.narrations.get(project_id)
    if narration.output is None or snapshot_id != narration.id:
        raise NotFound(f"there is no snapshot {snapshot_id[:64]!r} of this project", param="project_snapshot_id")
    return narration


def _submission(form: Form, directory: Path, max_file_bytes: int) -> Submission:
    """What a form asks for. Blocks. Raises InvalidRequest and ManuscriptUnfit."""
    if any(form.values("from_url")):
        raise InvalidRequest("from_url: no address is fetched here; send the text as from_document", param="from_url")
    said = {name: values[0] for name in FOLLOWED if (values := form.values(name)) and values[0]}
    narrator = said.get("default_paragraph_voice_id") or said.get("default_title_voice_id")
    if narrator is None:
        raise InvalidRequest("name a voice as default_paragraph_voice_id", param="default_paragraph_voice_id")
    options = {name: said[name] for name in ("author", "language") if name in said}
    try:
        wanted = NewNarration(
            voice=narrator,
            model=model_meant(said.get("default_model_id")),
            format=NarrationFormat.MP3,
            title=said.get("title") or form.value("name"),
            options={**options, "normalise": said.get("apply_text_normalization") != "off"},  # pyright: ignore[reportArgumentType]
            webhook_url=said.get("callback_url"),
        )
        if any(file.field == "from_document" for file in form.files):
            file = form.file("from_document", max_bytes=max_file_bytes)
            return Submission.of_file(wanted, file.path, shown_name(file.name))
        if "from_content_json" not in said:
            raise InvalidRequest("the form has no text; send from_document or from_content_json", param="from_document")
        content = TypeAdapter(list[ContentChapter]).validate_json(said["from_content_json"])
    except ValidationError as error:
        place, reason = first_fault(error)
        raise InvalidRequest(f"{place or 'the form'}: {reason}", param=place or None) from None
    path = directory / "content.html"
    path.write_text(_page(content, narrator), "utf-8")
    return Submission(wanted, path, SourceKind.HTML, "content.html")


def _page(content: list[ContentChapter], narrator: str) -> str:
    """The content as a page: a heading for each chapter, a paragraph for each voice's words of a block."""
    parts: list[str] = []
    for chapter in content:
        if chapter.name:
            parts.append(f"<h1>{html.escape(chapter.name)}</h1>")
        for block in chapter.blocks:
            for voice, nodes in groupby(block.nodes, key=lambda node: node.voice_id or narrator):
                words = " ".join(node.text for node in nodes)
                marker = "" if voice == narrator else f"[voice: {voice}] "
                parts.append(f"<p>{html.escape(marker + words)}</p>")
    return "\n".join(parts)


def _project(narration: Narration) -> dict[str, Any]:
    finished = narration.finished_at if narration.output else None
    return {
        "project_id": narration.id,
        "name": narration.title or narration.source.file_name,
        "title": narration.title,
        "author": narration.options.author,
        "language": narration.options.language,
        "create_date_unix": round(narration.created_at.timestamp()),
        "last_conversion_date_unix": finished and round(finished.timestamp()),
        "default_title_voice_id": narration.voice,
        "default_paragraph_voice_id": narration.voice,
        "default_title_voice_ref_id": narration.voice,
        "default_paragraph_voice_ref_id": narration.voice,
        "default_model_id": narration.model,
        "can_be_downloaded": narration.output is not None,
        "volume_normalization": True,
        "state": _state(narration),
        "access_level": "admin",
        "quality_check_on": False,
        "quality_check_on_when_bulk_convert": False,
    }


def _state(narration: Narration) -> str:
    if narration.state.over:
        return "default"
    return "in_queue" if narration.state is NarrationState.QUEUED else "converting"


def _chapters(narration: Narration) -> list[dict[str, Any]]:
    return [
        {
            "chapter_id": str(chapter.number),
            "name": chapter.title or f"Chapter {chapter.number}",
            "can_be_downloaded": False,
            "state": "default" if chapter.finished else "converting",
            "conversion_progress": chapter.segments_done / chapter.segments if chapter.segments else 0.0,
            "last_conversion_date_unix": None,
        }
        for chapter in narration.chapters
    ]


def _snapshot(narration: Narration) -> dict[str, Any]:
    made = narration.finished_at or narration.created_at
    return {
        "project_snapshot_id": narration.id,
        "project_id": narration.id,
        "created_at_unix": round(made.timestamp()),
        "name": narration.title,
    }
