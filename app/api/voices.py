"""Voices as their owners manage them, and the speaker's consent. The scope is `clone`, except where it says `admin`.

A voice is made empty; it gets recordings (`app.api.samples`, `app.api.uploads`), a consent, and by a clone job a
version, with which it can be spoken with. Its `state` is `empty` without recordings, `collecting` with some and no
version, `ready` with a version in force. `GET /v1/audio/voices` lists what can be spoken with, built-in voices too.

Consent is either a recording of `consent_phrase`, whose number is issued for this voice alone, or an operator's word
that it is kept elsewhere (scope `admin`, and a line in the log). An English recording is heard: `checked` says that the
phrase and the number were in it, and `statement` what was heard; another is refused. In other languages `checked` is
false. Consent is withdrawn by deleting the voice, with everything that was made of it.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import Cloner, admit, bearer_token
from app.api.bodies import either_body, json_body, media_type, read_json
from app.api.forms import FormLimits, form_body, received_form
from app.api.services import TheServices
from app.api.voice_views import consent_json, voice_json
from app.platform.file_names import shown_name
from app.speech.choices import Scope
from app.voices.ingest import MAX_CONSENT_BYTES
from app.voices.models import LANGUAGE, MAX_LANGUAGE_CHARS
from app.voices.voice_names import MAX_NAME_CHARS

MAX_PAGE = 1000
"""Page size."""

router = APIRouter(tags=["voices"])


class NewVoice(BaseModel):
    """The body of `POST /v1/voices`."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description=f"1 to {MAX_NAME_CHARS} printable characters, no other voice's name.")
    model: str | None = Field(default=None, max_length=128, description="Default: the first that is served.")
    language: str = Field(default="en", max_length=MAX_LANGUAGE_CHARS, pattern=LANGUAGE, description="BCP 47.")
    description: str = Field(default="", max_length=2000)


class Rollback(BaseModel):
    """The body of `POST /v1/voices/{id}/rollback`."""

    model_config = ConfigDict(extra="forbid")

    version: int | None = Field(default=None, ge=1, description="Default: the one before the version in force.")


class OperatorConsent(BaseModel):
    """An operator's statement that the owner of the voice has consented."""

    model_config = ConfigDict(extra="forbid")

    statement: str = Field(min_length=1, max_length=2000, description="Where the consent is kept, and whose it is.")


@router.post("/v1/voices", status_code=201, openapi_extra=json_body(NewVoice))
async def create(request: Request, services: TheServices, _: Cloner) -> dict[str, Any]:
    """A new voice without recordings."""
    wanted = await read_json(request, NewVoice)
    record = await services.voices.create(
        wanted.name, model=wanted.model, language=wanted.language, description=wanted.description
    )
    await services.audit("voice.create", record.id)
    return voice_json(record)


@router.get("/v1/voices")
async def list_voices(
    services: TheServices,
    _: Cloner,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
    after: Annotated[str | None, Query(max_length=64)] = None,
) -> dict[str, Any]:
    """The voices that were made here, by name; `after` is the id of the last one of the page before."""
    found = await services.catalog.voices.all(limit=limit + 1, after=after)
    page = [voice_json(record) for record in found[:limit]]
    return {"object": "list", "data": page, "has_more": len(found) > limit}


@router.get("/v1/voices/{voice_id}")
async def one(voice_id: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    return voice_json(await services.catalog.voices.get(voice_id))


MAX_NAMED = 1_000
BOOKS = "a narration with its file is its maker's; DELETE /v1/narrations/{id} deletes it"
RECORDS: tuple[dict[str, Any], ...] = (
    {"what": "usage", "ids": [], "why": "what was spoken is charged for: seconds and characters by the voice's id"},
    {"what": "audit", "ids": [], "why": "who made and deleted the voice, by its id"},
    {"what": "tombstone", "ids": [], "why": "the id, so that leftovers of what runs still are deleted too"},
)
"""What a deleted voice leaves: no word, no name and no sound of it."""


@router.delete("/v1/voices/{voice_id}")
async def delete(voice_id: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    """Delete a voice with its recordings, consent, checkpoints, adapters, renderings and cached copies.

    What is kept is listed, with the reason. A running job is asked to stop. The call is idempotent, and a repetition
    finishes what an unavailable store left undone.
    """
    narrations = await services.catalog.narrations.spoken_by(voice_id, limit=MAX_NAMED)
    await services.voices.delete(voice_id)
    await services.audit("voice.delete", voice_id)
    return {
        "id": voice_id,
        "deleted": True,
        "stays": [{"what": "narrations", "ids": narrations, "why": BOOKS}, *RECORDS],
    }


@router.post("/v1/voices/{voice_id}/rollback", openapi_extra=json_body(Rollback))
async def roll_back(voice_id: str, request: Request, services: TheServices, _: Cloner) -> dict[str, Any]:
    """Put an earlier version in force; new sessions speak with it within a second."""
    wanted = await read_json(request, Rollback)
    await services.catalog.voices.roll_back(voice_id, wanted.version)
    await services.audit("voice.rollback", voice_id)
    return voice_json(await services.catalog.voices.get(voice_id))


@router.post("/v1/voices/{voice_id}/prefetch")
async def prefetch(voice_id: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    """Have the version in force loaded where it would be spoken now, for speech that is to come; answers once it is.

    It is a session in the background that says nothing: it holds a spare place while the adapter is loaded, and makes
    way for listeners. A voice that just passed its gate needs none, for the gate has had it spoken there.
    """
    await services.catalog.voices.get(voice_id)
    voice = await services.resolver.find(voice_id, None)
    async with services.session_router.open(voice, pace="background") as session:
        version = voice.adapter.version if voice.adapter else 0
        return {"id": voice_id, "version": version, "worker": session.worker.id}


@router.post(
    "/v1/voices/{voice_id}/consent",
    status_code=201,
    openapi_extra=either_body(form_body(recording="file"), json_body(OperatorConsent)),
)
async def consent(voice_id: str, request: Request, services: TheServices, key: Cloner) -> dict[str, Any]:
    """The owner's consent: a form with a `recording` of the phrase, or an operator's JSON `statement` (`admin`)."""
    record = await services.catalog.voices.get(voice_id)
    key_id = key.id if key else None
    if media_type(request) == "application/json":
        await admit(services, bearer_token(request), Scope.ADMIN)
        wanted = await read_json(request, OperatorConsent)
        attested = await services.consents.attest(record, wanted.statement, key_id=key_id)
        await services.audit("consent.attest", voice_id)
        return consent_json(attested)
    async with received_form(request, services.uploads_directory, FormLimits.one_file(MAX_CONSENT_BYTES)) as form:
        file = form.file("recording", max_bytes=MAX_CONSENT_BYTES)
        kept = await services.ingest.keep_consent(
            voice_id,
            file.path,
            file_name=shown_name(file.name),
            language=record.language,
            number=record.consent_number,
            key_id=key_id,
        )
    await services.audit("consent.record", voice_id)
    return consent_json(kept)


@router.get("/v1/voices/{voice_id}/consent")
async def the_consent(voice_id: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    """The phrase to be read, and the newest consent, or null."""
    record = await services.catalog.voices.get(voice_id)
    return {"phrase": record.consent_phrase, "consent": record.consent and consent_json(record.consent)}
