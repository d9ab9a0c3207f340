"""Texts read aloud: `POST /v1/narrations`, their progress, live and on demand, their segments and their end.

A request's body is read by `app.api.narration_submission`; the finished files are `app.api.narration_files`. What is
done with a narration is in `app.narration.submission` and `app.narration.service`.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import Narrator
from app.api.bodies import either_body, json_body, read_json
from app.api.forms import form_body
from app.api.narration_submission import received
from app.api.narration_views import narration_json, segments_json
from app.api.services import Services, TheServices
from app.errors import InvalidRequest, NotFound
from app.narration.models import Narration
from app.narration.submission import Cast, NewNarration, VoiceName

router = APIRouter(tags=["narrations"])

MAX_REGENERATED = 1_000


class Regeneration(BaseModel):
    """The body of `POST /v1/narrations/{id}/segments/regenerate`."""

    model_config = ConfigDict(extra="forbid")

    segments: set[Annotated[int, Field(ge=1)]] = Field(min_length=1, max_length=MAX_REGENERATED)


class Resumption(BaseModel):
    """The body of `POST /v1/narrations/{id}/resume`: nothing, or the voices to go on with."""

    model_config = ConfigDict(extra="forbid")

    voice: VoiceName | None = None
    cast: Cast | None = Field(default=None, description="The whole cast, in place of the one before.")


@router.post(
    "/v1/narrations",
    status_code=202,
    openapi_extra=either_body(json_body(NewNarration), form_body(narration="text", file="file", cover="file?")),
)
async def create(request: Request, response: Response, services: TheServices, _: Narrator) -> dict[str, Any]:
    """Have a text, a Markdown file or an EPUB read aloud. The answer to a bad one says what is wrong, and where.

    A form's `narration` is the JSON value, without its text.
    """
    async with received(request, services) as submission:
        narration = await services.submissions.accept(submission)
    return await _queued("narration.create", narration, services, response)


@router.get("/v1/narrations")
async def list_narrations(services: TheServices, _: Narrator, limit: int = 100) -> dict[str, Any]:
    """The newest narrations, without their chapters and findings."""
    if not 1 <= limit <= 1000:
        raise InvalidRequest(f"limit {limit} is out of range; choose 1 to 1000", param="limit")
    narrations = await services.catalog.narrations.all(limit=limit)
    return {
        "object": "list",
        "data": [narration_json(services, one, without={"chapters", "findings"}) for one in narrations],
    }


@router.get("/v1/narrations/{narration_id}")
async def one_narration(narration_id: str, services: TheServices, _: Narrator) -> dict[str, Any]:
    """A narration: how far each chapter is, what it cost, what was found, and links to what is finished."""
    return narration_json(services, await services.catalog.narrations.get(narration_id))


@router.get("/v1/narrations/{narration_id}/events")
async def narration_events(narration_id: str, services: TheServices, _: Narrator) -> Response:
    """Server-sent events: the narration whenever it has changed, until it is over. Findings come when they are new."""

    def changed(narration: Narration, told: Narration | None) -> dict[str, Any]:
        old_news = told is not None and told.findings == narration.findings
        return narration_json(services, narration, without={"findings"} if old_news else frozenset())

    narration = await services.catalog.narrations.get(narration_id)
    return services.watches.stream(
        narration,
        reload=lambda: services.catalog.narrations.get(narration_id),
        render=changed,
        held=services.held,
    )


@router.post("/v1/narrations/{narration_id}/cancel")
async def cancel(narration_id: str, services: TheServices, _: Narrator) -> dict[str, Any]:
    """Stop within some seconds. What has been spoken is kept for `resume`."""
    narration = await services.catalog.narrations.request_cancel(narration_id)
    await services.audit("narration.cancel", narration_id)
    return narration_json(services, narration)


@router.post("/v1/narrations/{narration_id}/resume", status_code=202, openapi_extra=json_body(Resumption))
async def resume(
    narration_id: str, request: Request, response: Response, services: TheServices, _: Narrator
) -> dict[str, Any]:
    """Go on with one that failed or was cancelled, with other voices if some are named; nothing is spoken twice."""
    wanted = await read_json(request, Resumption)
    narration = await services.narrations.resume(narration_id, voice=wanted.voice, cast=wanted.cast)
    return await _queued("narration.resume", narration, services, response)


@router.post("/v1/narrations/{narration_id}/segments/{number}/regenerate", status_code=202)
async def regenerate(
    narration_id: str, number: int, response: Response, services: TheServices, _: Narrator
) -> dict[str, Any]:
    """Read one segment again and make the file again around it; until then the old one is served."""
    narration = await services.narrations.regenerate(narration_id, [number])
    return await _queued("narration.regenerate", narration, services, response)


@router.post(
    "/v1/narrations/{narration_id}/segments/regenerate", status_code=202, openapi_extra=json_body(Regeneration)
)
async def regenerate_several(
    narration_id: str, request: Request, response: Response, services: TheServices, _: Narrator
) -> dict[str, Any]:
    """Read several segments again at once, and make the file once."""
    wanted = await read_json(request, Regeneration)
    narration = await services.narrations.regenerate(narration_id, wanted.segments)
    return await _queued("narration.regenerate", narration, services, response)


@router.get("/v1/narrations/{narration_id}/segments/{number}/audio", response_class=Response)
async def segment_audio(narration_id: str, number: int, services: TheServices, _: Narrator) -> Response:
    """One segment by itself, as it was spoken last: as soon as it has been, before the whole is done."""
    narration = await services.catalog.narrations.get(narration_id)
    audio = await services.narrations.segment_audio(narration, number)
    return Response(audio, media_type="audio/flac", headers={"cache-control": "private, no-cache"})


@router.get("/v1/narrations/{narration_id}/segments")
async def segments(
    narration_id: str,
    services: TheServices,
    _: Narrator,
    chapter: int | None = None,
    flagged: bool = False,
    words: bool = False,
) -> Response:
    """The segments of one chapter or of all, as written and as spoken; with times and flags once there is a file.

    `words`: with those of each word, too.
    """
    narration = await services.catalog.narrations.get(narration_id)
    if chapter is not None and all(chapter != one.number for one in narration.chapters):
        raise NotFound(f"there is no chapter {chapter}; this narration has {len(narration.chapters)}", param="chapter")
    source = await services.narrations.segments(narration)
    content = await asyncio.to_thread(segments_json, narration, source, chapter=chapter, flagged=flagged, words=words)
    return Response(content, media_type="application/json")


@router.delete("/v1/narrations/{narration_id}")
async def delete(narration_id: str, services: TheServices, _: Narrator) -> dict[str, Any]:
    """The text and the finished file go; it must be over.

    Its segments go within an hour, but for those that another narration of the same words uses.
    """
    await services.narrations.delete(narration_id)
    await services.audit("narration.delete", narration_id)
    return {"id": narration_id, "deleted": True}


async def _queued(action: str, narration: Narration, services: Services, response: Response) -> dict[str, Any]:
    await services.audit(action, narration.id)
    response.headers["location"] = f"/v1/narrations/{narration.id}"
    return narration_json(services, narration)
