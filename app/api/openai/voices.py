"""OpenAI's custom voices, as its SDK sends them: `/v1/audio/voice_consents` and `/v1/audio/voices`. Scope `clone`.

A façade of the services behind `app.api.voices`; the same voices are seen through both. Where the two differ:

* OpenAI's consent comes before its voice. Here a consent belongs to a voice, so a new consent makes an empty one under
  the consent's name, and `POST /v1/audio/voices` gives that voice its name and its first recording. A consent is
  therefore good for one voice, consents and voices share their names' space, and deleting a consent whose voice has
  recordings is refused: delete the voice, with everything that was made of it.
* OpenAI's phrase has no number issued for the voice, so such a consent's `number` is empty.
* `GET` shows consents made through `/v1/voices/{id}/consent` too; an operator's word is one of them.
* A voice from one sample cannot be spoken with yet. More recordings and `POST /v1/clones` make it so.
* `type=prompt` is refused: no model here makes a voice from a description.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict

from app.api.access import Cloner
from app.api.bodies import json_body, read_json
from app.api.forms import FormLimits, form_body, received_form
from app.api.services import TheServices
from app.errors import InvalidRequest, NotFound
from app.platform.file_names import shown_name
from app.voices.ingest import MAX_CONSENT_BYTES
from app.voices.models import LANGUAGE, MAX_LANGUAGE_CHARS, Consent, VoiceRecord

router = APIRouter(prefix="/v1/audio", tags=["openai"])


class NewName(BaseModel):
    """The body of `POST /v1/audio/voice_consents/{id}`."""

    model_config = ConfigDict(extra="forbid")

    name: str


@router.post("/voice_consents", openapi_extra=form_body(name="text", language="text", recording="file"))
async def create_consent(request: Request, services: TheServices, key: Cloner) -> dict[str, Any]:
    """Keep the recording of a consent, with an empty voice for it."""
    async with received_form(request, services.uploads_directory, FormLimits.one_file(MAX_CONSENT_BYTES)) as form:
        language, file = form.value("language"), form.file("recording", max_bytes=MAX_CONSENT_BYTES)
        if len(language) > MAX_LANGUAGE_CHARS or not re.match(LANGUAGE, language):
            raise InvalidRequest("language: it is no BCP 47 tag; write it like en-US", param="language")
        record, consent = await services.consents.create(
            form.value("name"),
            file.path,
            file_name=shown_name(file.name),
            language=language,
            key_id=key.id if key else None,
        )
    await services.audit("voice.create", record.id)
    await services.audit("consent.record", record.id)
    return _consent(record, consent)


@router.get("/voice_consents")
async def list_consents(
    services: TheServices,
    _: Cloner,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """The consents of living voices, the newest first."""
    everything = await services.consents.all()
    ids = [consent.id for _, consent in everything]
    if after is not None and after not in ids:
        raise NotFound(f"there is no consent {after[:64]!r}", param="after")
    start = ids.index(after) + 1 if after is not None else 0
    page = [_consent(*pair) for pair in everything[start : start + limit]]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(everything) > start + limit,
    }


@router.get("/voice_consents/{consent_id}")
async def one_consent(consent_id: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    return _consent(*await services.consents.get(consent_id))


@router.post("/voice_consents/{consent_id}", openapi_extra=json_body(NewName))
async def rename_consent(consent_id: str, request: Request, services: TheServices, _: Cloner) -> dict[str, Any]:
    """Another name for the consent, and so for its voice."""
    record, consent = await services.consents.get(consent_id)
    wanted = await read_json(request, NewName)
    renamed = await services.voices.rename(record, wanted.name)
    await services.audit("voice.rename", record.id)
    return _consent(renamed, consent)


@router.delete("/voice_consents/{consent_id}")
async def delete_consent(consent_id: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    await services.consents.delete(consent_id)
    await services.audit("consent.delete", consent_id)
    return {"id": consent_id, "object": "audio.voice_consent", "deleted": True}


@router.post("/voices", openapi_extra=form_body(name="text", audio_sample="file", consent="text", type="text?"))
async def create_voice_from_sample(request: Request, services: TheServices, _: Cloner) -> dict[str, Any]:
    """Give a consent's voice its name and first recording."""
    max_bytes = services.settings.cloning.max_sample_bytes
    async with received_form(request, services.uploads_directory, FormLimits.one_file(max_bytes)) as form:
        if (form.values("type") or ["audio_sample"])[-1] != "audio_sample":
            raise InvalidRequest("type: voices are made of recordings here; send audio_sample", param="type")
        name, file = form.value("name"), form.file("audio_sample", max_bytes=max_bytes)
        record = await services.consents.begin_voice(
            form.value("consent"), name, file.path, file_name=shown_name(file.name)
        )
    await services.audit("sample.create", record.id)
    return _voice(record)


@router.delete("/voices/{voice_id}")
async def delete_custom_voice(voice_id: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    await services.voices.delete(voice_id)
    await services.audit("voice.delete", voice_id)
    return {"id": voice_id, "object": "audio.voice.deleted", "deleted": True}


def _consent(record: VoiceRecord, consent: Consent) -> dict[str, Any]:
    return {
        "id": consent.id,
        "object": "audio.voice_consent",
        "name": record.name,
        "language": record.language,
        "created_at": int(consent.created_at.timestamp()),
    }


def _voice(record: VoiceRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "object": "audio.voice",
        "name": record.name,
        "type": "audio_sample",
        "created_at": int(record.created_at.timestamp()),
    }
