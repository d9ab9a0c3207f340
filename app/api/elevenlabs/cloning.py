"""ElevenLabs' voices in the making: added with recordings, verified, trained, deleted. The scope is `clone`.

A façade of the services behind `app.api.voices`, `samples` and `clones`; the same voices are seen through both. Where
the two differ:

* Nothing here clones in an instant. `POST /v1/voices/add` keeps the recordings of a new voice and says
  `requires_verification`; it speaks once it is verified and trained, as one made by `/v1/voices/pvc` does.
* Verification is the speaker reading a phrase with a number that is issued for the voice: the voice's
  `fine_tuning.message` has it.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import is_operator, requires
from app.api.bodies import read_json
from app.api.elevenlabs.wire import ElevenLabsSharedRoute, TheServices, api_key
from app.api.forms import Form, FormLimits, received_form
from app.api.services import Services
from app.errors import InvalidRequest
from app.platform.api_keys import ApiKey
from app.platform.file_names import shown_name
from app.speech.choices import Scope
from app.voices.ingest import MAX_CONSENT_BYTES, SentFile
from app.voices.models import LANGUAGE, MAX_LANGUAGE_CHARS, Sample, VoiceRecord

Cloner = Annotated[ApiKey | None, Depends(requires(Scope.CLONE, api_key))]

router = APIRouter(route_class=ElevenLabsSharedRoute, include_in_schema=False)


class NewVoice(BaseModel):
    """The body of `POST /v1/voices/pvc`; labels and the like are ignored."""

    model_config = ConfigDict(extra="ignore")

    name: str
    language: str = Field(default="en", max_length=MAX_LANGUAGE_CHARS, pattern=LANGUAGE)
    description: str | None = Field(default=None, max_length=2000)


class Training(BaseModel):
    """The body of `POST …/train`: the model is the one that the voice was made for."""

    model_config = ConfigDict(extra="ignore")

    model_id: str | None = None


@router.post("/v1/voices/pvc")
async def create(request: Request, services: TheServices, _: Cloner) -> dict[str, Any]:
    """A new voice without recordings."""
    wanted = await read_json(request, NewVoice)
    record = await services.voices.create(
        wanted.name, model=None, language=wanted.language, description=wanted.description or ""
    )
    await services.audit("voice.create", record.id)
    return {"voice_id": record.id}


@router.post("/v1/voices/add")
async def add(request: Request, services: TheServices, _: Cloner) -> dict[str, Any]:
    """A new voice with its recordings; it is gone again where none of them can be used."""
    async with received_form(request, services.uploads_directory, _limits(services)) as form:
        description = (form.values("description") or [""])[-1][:2000]
        record = await services.voices.create(form.value("name"), model=None, language="en", description=description)
        try:
            await _kept(record, form, services)
        except BaseException:
            await services.voices.delete(record.id)
            raise
        await services.audit("voice.create", record.id)
    return {"voice_id": record.id, "requires_verification": True}


@router.post("/v1/voices/pvc/{voice_id}/samples")
async def add_samples(voice_id: str, request: Request, services: TheServices, _: Cloner) -> list[dict[str, Any]]:
    """Add recordings. 400 only where none could be used; those that could are answered."""
    record = await services.catalog.voices.get(voice_id)
    async with received_form(request, services.uploads_directory, _limits(services)) as form:
        samples = await _kept(record, form, services)
    for sample in samples:
        await services.audit("sample.create", sample.id)
    return [_sample(sample) for sample in samples]


@router.delete("/v1/voices/pvc/{voice_id}/samples/{sample_id}")
@router.delete("/v1/voices/{voice_id}/samples/{sample_id}")
async def delete_sample(voice_id: str, sample_id: str, services: TheServices, _: Cloner) -> dict[str, str]:
    await services.ingest.delete_sample(voice_id, sample_id)
    await services.audit("sample.delete", sample_id)
    return {"status": "ok"}


@router.post("/v1/voices/pvc/{voice_id}/verification")
async def verify(voice_id: str, request: Request, services: TheServices, key: Cloner) -> dict[str, str]:
    """The speaker reads the phrase of the voice; another text is refused."""
    record = await services.catalog.voices.get(voice_id)
    async with received_form(request, services.uploads_directory, FormLimits.one_file(MAX_CONSENT_BYTES)) as form:
        file = form.file("files", max_bytes=MAX_CONSENT_BYTES)
        await services.ingest.keep_consent(
            voice_id,
            file.path,
            file_name=shown_name(file.name),
            language=record.language,
            number=record.consent_number,
            key_id=key.id if key else None,
        )
    await services.audit("consent.record", voice_id)
    return {"status": "ok"}


@router.post("/v1/voices/pvc/{voice_id}/train")
async def train(voice_id: str, request: Request, services: TheServices, key: Cloner) -> dict[str, str]:
    """Queue the making of the voice; its `fine_tuning` says how far that is."""
    await read_json(request, Training)
    job = await services.clones.clone(voice_id, {}, webhook_url=None, operator=is_operator(key))
    await services.audit("clone.create", job.id)
    return {"status": "ok"}


@router.delete("/v1/voices/{voice_id}")
async def delete(voice_id: str, services: TheServices, _: Cloner) -> dict[str, str]:
    """Everything of a voice goes, as by our own call."""
    await services.voices.delete(voice_id)
    await services.audit("voice.delete", voice_id)
    return {"status": "ok"}


def _limits(services: Services) -> FormLimits:
    cloning = services.settings.cloning
    return FormLimits.many_files(cloning.max_sample_bytes, parts=cloning.max_samples + 8)


async def _kept(record: VoiceRecord, form: Form, services: Services) -> list[Sample]:
    files = [file for file in form.files if file.field == "files"]
    if not files:
        raise InvalidRequest("the form has no recordings; send them as `files`", param="files")
    sent = [SentFile(shown_name(file.name), file.path if file.whole else None, None) for file in files]
    samples, _ = await services.ingest.keep_samples(record, sent)
    return list(samples)


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "sample_id": sample.id,
        "file_name": sample.file_name,
        "mime_type": sample.content_type,
        "size_bytes": sample.size_bytes,
        "hash": "",
        "duration_secs": sample.facts.duration_s,
    }
