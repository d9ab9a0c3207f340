"""Texts read aloud: `POST /v1/narrations`, their progress, live and on demand, their segments and their end.

The catalogue's row is the truth; the queue gets a message by the task's name, and a reconciler sends another should it
be lost. What is handed in is read by `app.api.narration_submission`; the finished files are `app.api.narration_files`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api import narration_submission
from app.api.bodies import json_body, read_json, workspace
from app.api.narration_submission import Cast, NewNarration, VoiceName
from app.api.services import Services, TheServices, requires
from app.api.sse import event_stream
from app.errors import Conflict, InvalidRequest, NotFound
from app.narration.cast import Casting, casting
from app.narration.models import NARRATOR, Narration, NarrationState, Script, Timeline
from app.platform import webhooks
from app.platform.api_keys import ApiKey
from app.platform.broker import NARRATE, RENDER
from app.platform.object_keys import narration_prefix
from app.speech.choices import Scope
from app.speech.voices import Voice
from app.voices.ingest import to_the_end

Narrator = Annotated[ApiKey | None, Depends(requires(Scope.NARRATE))]

router = APIRouter(tags=["narrations"])


class Resumption(BaseModel):
    """The body of `POST /v1/narrations/{id}/resume`: nothing, or the voices to go on with."""

    model_config = ConfigDict(extra="forbid")

    voice: VoiceName | None = None
    cast: Cast | None = Field(default=None, description="The whole cast, in place of the one before.")


@router.post(
    "/v1/narrations",
    status_code=202,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                **json_body(NewNarration)["requestBody"]["content"],
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["narration", "file"],
                        "properties": {
                            "narration": {"type": "string", "description": "The JSON value, without its text."},
                            "file": {"type": "string", "format": "binary"},
                            "cover": {"type": "string", "format": "binary"},
                        },
                    }
                },
            },
        }
    },
)
async def create(request: Request, services: TheServices, _: Narrator) -> dict[str, Any]:
    """Have a text, a Markdown file or an EPUB read aloud. What is wrong with it is told at once, with the place."""
    async with narration_submission.received(request, services) as commission:
        if commission.wanted.webhook_url is not None:
            await webhooks.check(commission.wanted.webhook_url, services.settings.cloning)
        narration = await narration_submission.accepted(services, commission)
    return await _queued(services, narration)


async def _queued(services: Services, narration: Narration) -> dict[str, Any]:
    await services.queue.send(NARRATE, narration.id, queue=RENDER)
    return shown(services, narration)


@router.get("/v1/narrations")
async def list_narrations(services: TheServices, _: Narrator, limit: int = 100) -> dict[str, Any]:
    """The newest narrations, without their chapters and findings."""
    if not 1 <= limit <= 1000:
        raise InvalidRequest(f"limit {limit} is out of range; choose 1 to 1000", param="limit")
    narrations = await services.catalog.narrations.all(limit=limit)
    return {"object": "list", "data": [shown(services, one, without={"chapters", "findings"}) for one in narrations]}


@router.get("/v1/narrations/{narration_id}")
async def one_narration(narration_id: str, services: TheServices, _: Narrator) -> dict[str, Any]:
    """A narration: how far each chapter is, what it cost, what was found, and links to what is finished."""
    return shown(services, await services.catalog.narrations.get(narration_id))


@router.get("/v1/narrations/{narration_id}/events")
async def narration_events(narration_id: str, services: TheServices, _: Narrator) -> Response:
    """Server-sent events: the narration whenever it has changed, until it is over. Findings come when they are new."""

    def changed(narration: Narration, told: Narration | None) -> dict[str, Any]:
        old_news = told is not None and told.findings == narration.findings
        return shown(services, narration, without={"findings"} if old_news else frozenset())

    narration = await services.catalog.narrations.get(narration_id)
    return event_stream(narration, again=lambda: services.catalog.narrations.get(narration_id), shown=changed)


@router.post("/v1/narrations/{narration_id}/cancel")
async def cancel(narration_id: str, services: TheServices, _: Narrator) -> dict[str, Any]:
    """Stop within some seconds. What has been spoken is kept for `resume`."""
    return shown(services, await services.catalog.narrations.request_cancel(narration_id))


@router.post("/v1/narrations/{narration_id}/resume", status_code=202, openapi_extra=json_body(Resumption))
async def resume(narration_id: str, request: Request, services: TheServices, _: Narrator) -> dict[str, Any]:
    """Go on with one that failed or was cancelled, with other voices if some are named; nothing is spoken twice."""
    wanted = await read_json(request, Resumption)
    narration = await services.catalog.narrations.get(narration_id)
    if narration.state not in (NarrationState.FAILED, NarrationState.CANCELLED):
        raise Conflict(f"{doing(narration)}; only one that failed or was cancelled can be resumed", param="id")
    if wanted.voice is None and wanted.cast is None:
        await _all_there(services, narration, "resume with another in its place, as `voice` or in `cast`")
        return await _queued(services, await services.catalog.narrations.resume(narration_id))
    recast = await _recast(services, narration, wanted)
    resumed = await services.catalog.narrations.resume(
        narration_id,
        voice=recast.voice,
        cast=recast.cast,
        voices={**recast.voices, **_pinned(narration, recast)},
        findings=recast.findings,
    )
    return await _queued(services, resumed)


async def _recast(services: Services, narration: Narration, wanted: Resumption) -> Casting:
    """The voices to go on with, held against the text. Raises what `casting` raises."""
    cast = narration.cast if wanted.cast is None else wanted.cast
    voice = wanted.voice or cast.get(NARRATOR) or narration.voice
    async with workspace(services.uploads_directory) as directory:
        folder, _, name = narration.source.key.rpartition("/")
        path = directory / "source"
        await to_the_end(asyncio.to_thread(services.store.fetch, services.store.uri(folder), name, path))
        book = await narration_submission.read(services, path, narration.source.kind, narration.source.file_name)
    return await casting(
        services.resolver.find,
        book.manuscript,
        voice=voice,
        cast={character: name for character, name in cast.items() if character != NARRATOR},
        model=narration.model,
        language=narration.options.language or book.manuscript.language,
    )


def _pinned(narration: Narration, recast: Casting) -> dict[str, Voice]:
    """Voices that were there before stay as they were: a newer version would not match what has been spoken."""
    return {
        name: narration.voices[name]
        for name, voice in recast.voices.items()
        if name in narration.voices and narration.voices[name].id == voice.id
    }


async def _all_there(services: Services, narration: Narration, remedy: str) -> None:
    """Raises Conflict for a voice that was deleted since the narration was handed in."""
    for name, voice in narration.voices.items():
        if voice.adapter is None:
            continue
        try:
            await services.catalog.voices.get(voice.id)
        except NotFound:
            raise Conflict(f"the voice {name!r} has been deleted; {remedy}", param="voice") from None


@router.post("/v1/narrations/{narration_id}/segments/{number}/regenerate", status_code=202)
async def regenerate(narration_id: str, number: int, services: TheServices, _: Narrator) -> dict[str, Any]:
    """Have one segment read anew, and the file made anew around it; until then the old one is served."""
    narration = await services.catalog.narrations.get(narration_id)
    if narration.state is not NarrationState.COMPLETED or narration.output is None:
        raise Conflict(f"{doing(narration)}; a segment can be read anew when it is completed", param="id")
    timeline = await read_timeline(services, narration)
    segment = next((segment for segment in timeline.segments if segment.number == number), None)
    if segment is None:
        raise NotFound(f"there is no segment {number}; this narration has {narration.segments}, from 1", param="number")
    # Of every segment: what was spoken is fetched once more, and spoken again where the store has it no longer.
    await _all_there(services, narration, "hand the text in anew with another in its place")
    again = await services.catalog.narrations.regenerate(narration_id, segment=number, chapter=segment.chapter)
    return await _queued(services, again)


@router.get("/v1/narrations/{narration_id}/segments")
async def segments(
    narration_id: str, services: TheServices, _: Narrator, chapter: int | None = None, flagged: bool = False
) -> Response:
    """The segments of one chapter or of all, as written and as spoken; with times and flags once there is a file."""
    narration = await services.catalog.narrations.get(narration_id)
    if chapter is not None and all(chapter != one.number for one in narration.chapters):
        raise NotFound(f"there is no chapter {chapter}; this narration has {len(narration.chapters)}", param="chapter")
    content = await asyncio.to_thread(_segments, services, narration, chapter, flagged)
    return Response(content, media_type="application/json")


def _segments(services: Services, narration: Narration, chapter: int | None, flagged: bool) -> str:
    """Reads and writes a whole book: blocks."""
    if narration.output is not None:
        timeline = Timeline.model_validate_json(services.store.get(narration.output.timeline_key))
        rate_hz = timeline.sample_rate_hz
        data = [
            segment.model_dump(mode="json", exclude={"start_sample", "end_sample"})
            | {"start_s": segment.start_sample / rate_hz, "end_s": segment.end_sample / rate_hz}
            for segment in timeline.segments
            if chapter in (None, segment.chapter) and (segment.flags or not flagged)
        ]
    elif narration.script_key is not None:
        script = Script.model_validate_json(services.store.get(narration.script_key))
        data = [
            segment.model_dump(mode="json", exclude={"gap_s"})
            | {"chapter": one.number, "voice": narration.voice_of(segment)}
            | {"start_s": None, "end_s": None, "flags": []}
            for one in script.chapters
            if chapter in (None, one.number) and not flagged
            for segment in one.segments
        ]
    else:
        raise Conflict(f"{doing(narration)}; it has no segments before it is planned", param="id")
    return json.dumps({"object": "list", "data": data})


async def read_timeline(services: Services, narration: Narration) -> Timeline:
    """Where everything lies in the finished file. Raises Conflict while there is none."""
    if narration.output is None:
        raise Conflict(f"{doing(narration)}; its file is there when it is completed", param="id")
    key = narration.output.timeline_key
    return await asyncio.to_thread(lambda: Timeline.model_validate_json(services.store.get(key)))


@router.delete("/v1/narrations/{narration_id}")
async def delete(narration_id: str, services: TheServices, _: Narrator) -> dict[str, Any]:
    """The text and the finished file go; it must be over.

    What was spoken is kept by voice, for other narrations of the same words, for `segment_days` of the settings, or
    until the voice is deleted.
    """
    await services.catalog.narrations.delete(narration_id)
    await narration_submission.discard_all(services, narration_prefix(narration_id))
    return {"id": narration_id, "deleted": True}


def doing(narration: Narration) -> str:
    """What a narration is at, for a refusal."""
    far = f", {narration.segments_done} of {narration.segments} segments are spoken" if narration.segments else ""
    why = f" ({narration.error.message})" if narration.error else ""
    return f"narration {narration.id} is {narration.state.value}{why}{far}"


def shown(
    services: Services, narration: Narration, *, without: frozenset[str] | set[str] = frozenset()
) -> dict[str, Any]:
    """A narration as clients see it: no addresses of the store, no versions of voices."""
    hidden: dict[str, Any] = {name: True for name in without}
    hidden |= {"voices": True, "script_key": True, "source": {"key", "cover_key"}, "output": {"key", "timeline_key"}}
    return {
        "object": "narration",
        **narration.model_dump(mode="json", exclude=hidden),
        "over": narration.state.over,
        "has_cover": narration.source.cover_key is not None,
        "segments": narration.segments,
        "segments_done": narration.segments_done,
        "flagged": sum(chapter.flagged for chapter in narration.chapters),
        "audio_s": narration.audio_s,
        "busy_s": narration.busy_s,
        "real_time_factor": narration.real_time_factor,
        "eta_s": eta_s(narration, lanes=services.settings.narration.at_once),
        "cost_usd": cost_usd(services, narration),
        "links": links(services, narration),
    }


def eta_s(narration: Narration, *, lanes: int) -> float | None:
    """Seconds until all is spoken, as it has gone so far; None before anything was spoken, and when it is over.

    The audio to come, from the mean of the segments so far, times the real-time factor, over the chapters that are
    spoken at a time: at most `lanes`.
    """
    if narration.state.over or narration.real_time_factor is None or not narration.segments_done:
        return None
    left = narration.segments - narration.segments_done
    audio_s = left * narration.audio_s / narration.segments_done
    unfinished = sum(not chapter.finished for chapter in narration.chapters)
    return audio_s * narration.real_time_factor / max(1, min(lanes, unfinished))


def cost_usd(services: Services, narration: Narration) -> float | None:
    """Its share of the workers' price: hours that places were taken, times a worker's price an hour, over its places.

    The places are the mean of the workers that serve the model now, or else this front door's setting. None where no
    price is set, or nobody knows the places.
    """
    usd_per_hour = services.settings.narration.worker_usd_per_hour
    places = [worker.capacity for worker in services.upstream.workers if worker.model.name == narration.model]
    capacity = sum(places) / len(places) if places else services.settings.capacity
    if usd_per_hour is None or capacity is None:
        return None
    return narration.busy_s / 3600 * usd_per_hour / capacity


def links(services: Services, narration: Narration) -> dict[str, str] | None:
    """Addresses below this front door's that need no key, until they expire; None while there is no file."""
    if narration.output is None:
        return None
    token, expires_at = services.links.token(narration.id)
    files = {"audio": "audio", "captions_vtt": "captions.vtt", "captions_srt": "captions.srt", "chapters": "chapters"}
    path = f"/v1/narrations/{narration.id}"
    addresses = {name: f"{path}/{file}?token={quote(token)}" for name, file in files.items()}
    return {**addresses, "expires_at": expires_at.isoformat()}
