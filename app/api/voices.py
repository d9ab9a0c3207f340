"""Voices as their owners manage them, and the speaker's consent. The scope is `clone`, except where it says `admin`.

A voice is made empty; it gets recordings (`app.api.samples`, `app.api.uploads`), a consent, and by a clone job a
version, with which it can be spoken with. Its `state` is `empty` without recordings, `collecting` with some and no
version, `ready` with a version in force. `GET /v1/audio/voices` lists what can be spoken with, built-in voices too.

Consent is either a recording of `consent_phrase`, whose number is issued for this voice alone, or an operator's word
that it is kept elsewhere (scope `admin`, and a line in the log). The words of a recording are not checked here:
`checked` says so. Consent is withdrawn by deleting the voice, with everything that was made of it.
"""

from __future__ import annotations

import asyncio
import logging
import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import FormLimits, json_body, read_json, received_form
from app.api.services import Services, TheServices, bearer_token, requires
from app.errors import Conflict, InvalidRequest, NotFound, Overloaded, UnknownModel
from app.platform.api_keys import ApiKey
from app.platform.database import utc_now
from app.platform.object_keys import voice_prefix
from app.speech.choices import Scope
from app.speech.voices import ModelCard
from app.voices.ingest import new_consent_id
from app.voices.models import Consent, VoiceRecord
from app.voices.resolver import NO_WORKER_RETRY_S
from app.voices.transcripts import shown_name

MAX_NAME_CHARS = 64
MAX_CONSENT_BYTES = 64 * 2**20
LANGUAGE = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"

Cloner = Annotated[ApiKey | None, Depends(requires(Scope.CLONE))]

router = APIRouter(tags=["voices"])
log = logging.getLogger(__name__)


class NewVoice(BaseModel):
    """The body of `POST /v1/voices`."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description=f"1 to {MAX_NAME_CHARS} printable characters, no other voice's name.")
    model: str | None = Field(default=None, max_length=128, description="Default: the first that is served.")
    language: str = Field(default="en", max_length=35, pattern=LANGUAGE, description="BCP 47.")
    description: str = Field(default="", max_length=2000)


class Rollback(BaseModel):
    """The body of `POST /v1/voices/{id}/rollback`."""

    model_config = ConfigDict(extra="forbid")

    version: int | None = Field(default=None, ge=1, description="Default: the one before the version in force.")


class OperatorConsent(BaseModel):
    """An operator's word that the owner of the voice has consented."""

    model_config = ConfigDict(extra="forbid")

    statement: str = Field(min_length=1, max_length=2000, description="Where the consent is kept, and whose it is.")


@router.post("/v1/voices", status_code=201, openapi_extra=json_body(NewVoice))
async def create(request: Request, services: TheServices, _: Cloner) -> dict[str, Any]:
    """A new voice without recordings."""
    wanted = await read_json(request, NewVoice)
    record = await create_voice(
        services, wanted.name, model=wanted.model, language=wanted.language, description=wanted.description
    )
    return voice_json(record)


@router.get("/v1/voices")
async def list_voices(services: TheServices, _: Cloner) -> dict[str, Any]:
    """Every voice that was made here, by name."""
    return {"object": "list", "data": [voice_json(record) for record in await services.catalog.voices.all()]}


@router.get("/v1/voices/{voice_id}")
async def one(voice_id: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    return voice_json(await services.catalog.voices.get(voice_id))


@router.delete("/v1/voices/{voice_id}")
async def delete(voice_id: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    """Everything of a voice goes: recordings, consent, checkpoints, adapters, workers' copies. A tombstone stays.

    A running job is asked to stop. Doing it again is harmless, and finishes what an absent store left undone.
    """
    await delete_voice(services, voice_id)
    return {"id": voice_id, "deleted": True}


@router.post("/v1/voices/{voice_id}/rollback", openapi_extra=json_body(Rollback))
async def roll_back(voice_id: str, request: Request, services: TheServices, _: Cloner) -> dict[str, Any]:
    """Put an earlier version in force; new sessions speak with it within a second."""
    wanted = await read_json(request, Rollback)
    await services.catalog.voices.roll_back(voice_id, wanted.version)
    return voice_json(await services.catalog.voices.get(voice_id))


@router.post(
    "/v1/voices/{voice_id}/consent",
    status_code=201,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {"type": "object", "properties": {"recording": {"type": "string", "format": "binary"}}}
                },
                "application/json": {"schema": OperatorConsent.model_json_schema()},
            },
        }
    },
)
async def consent(voice_id: str, request: Request, services: TheServices, key: Cloner) -> dict[str, Any]:
    """The owner's consent: a form with a `recording` of the phrase, or an operator's JSON `statement` (`admin`)."""
    record = await services.catalog.voices.get(voice_id)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        await services.admit(bearer_token(request), Scope.ADMIN)
        return consent_json(await _operators_word(services, record, await read_json(request, OperatorConsent), key))
    limits = consent_limits()
    async with received_form(request, services.uploads_directory, limits) as form:
        file = form.file("recording", max_bytes=limits.file_bytes)
        kept = await services.ingest.keep_consent(
            voice_id,
            file.path,
            file_name=shown_name(file.name),
            number=record.consent_number,
            key_id=key.id if key else None,
        )
    return consent_json(kept)


@router.get("/v1/voices/{voice_id}/consent")
async def the_consent(voice_id: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    """The phrase to be read, and the newest consent, or null."""
    record = await services.catalog.voices.get(voice_id)
    return {"phrase": record.consent_phrase, "consent": record.consent and consent_json(record.consent)}


def voice_json(record: VoiceRecord) -> dict[str, Any]:
    state = "ready" if record.version else "collecting" if record.sample_count else "empty"
    return {
        **record.model_dump(mode="json", exclude={"consent", "consent_number", "deleted_at"}),
        "state": state,
        "consent_phrase": record.consent_phrase,
        "consent": record.consent and consent_json(record.consent),
    }


def consent_json(consent: Consent) -> dict[str, Any]:
    return {**consent.model_dump(mode="json", exclude={"object_key"}), "checked": False}


def consent_limits() -> FormLimits:
    return FormLimits(file_bytes=MAX_CONSENT_BYTES, total_bytes=2 * MAX_CONSENT_BYTES, parts=8)


async def create_voice(
    services: Services, name: str, *, model: str | None = None, language: str = "en", description: str = ""
) -> VoiceRecord:
    """Raises InvalidRequest, UnknownModel, Conflict for a taken name, Overloaded while no model is served."""
    card = _served(services, model)
    name = await checked_name(services, name, card)
    return await services.catalog.voices.create(name, model=card.name, language=language, description=description)


async def checked_name(services: Services, name: str, card: ModelCard | None) -> str:
    """The name as it is kept. Raises InvalidRequest, and Conflict for a built-in voice's name or another's id."""
    name = unicodedata.normalize("NFC", name).strip()
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise InvalidRequest(
            f"name: it has {len(name)} characters; give 1 to {MAX_NAME_CHARS} printable ones", param="name"
        )
    if card and name.casefold() in {built_in.casefold() for built_in in card.voices}:
        raise Conflict(f"{name!r} is a voice of the model {card.name!r} itself; choose another name", param="name")
    try:
        await services.catalog.voices.get(name)
    except NotFound:
        return name
    raise Conflict(f"{name!r} is another voice's id; choose another name", param="name")


def _served(services: Services, name: str | None) -> ModelCard:
    cards = {card.name: card for card in services.upstream.models}
    if not cards:
        raise Overloaded("no worker is ready yet; try again in a moment", retry_after_s=NO_WORKER_RETRY_S)
    if name is None:
        return next(iter(cards.values()))
    if name not in cards:
        raise UnknownModel(
            f"model {name[:64]!r} is not served here; served are: {', '.join(sorted(cards))}", param="model"
        )
    return cards[name]


async def delete_voice(services: Services, voice_id: str) -> None:
    """The tombstone first: whoever keeps something of the voice from here on is refused and removes it again.

    Raises NotFound for a voice that never was, StoreUnavailable when the bytes could not be deleted yet.
    """
    try:
        await services.catalog.voices.delete(voice_id)
    except NotFound:
        if voice_id not in await services.catalog.voices.tombstones(since=datetime(2000, 1, 1, tzinfo=UTC)):
            raise
    await services.catalog.jobs.end_cancelled()
    log.info("voice deleted", extra={"voice": voice_id})
    await services.registry.retire_voice(voice_id)
    if services.object_store is not None:
        await asyncio.to_thread(services.object_store.delete_prefix, voice_prefix(voice_id))


async def _operators_word(
    services: Services, record: VoiceRecord, word: OperatorConsent, key: ApiKey | None
) -> Consent:
    consent = Consent(
        id=new_consent_id(),
        voice_id=record.id,
        kind="operator",
        number=record.consent_number,
        statement=word.statement,
        key_id=key.id if key else None,
        created_at=utc_now(),
    )
    await services.catalog.voices.add_consent(consent)
    log.info("operator consent", extra={"voice": record.id, "consent": consent.id, "key": consent.key_id})
    return consent
