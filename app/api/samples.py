"""The recordings of a voice, sent in forms: `/v1/voices/{id}/samples`. The scope is `clone`.

A form has any number of `files`, of WAV, FLAC, MP3, OGG, M4A, AAC or WebM, and the words to them, if they are known,
in one of three ways: `transcripts` (as many as files, in their order), one `manifest` (`app.voices.transcripts`), or
`.txt` files among the others with a recording's name. Each file is answered for: a bad one never spoils the rest. For
sets above a few gigabytes, or connections that break, there is `app.api.uploads`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import Cloner
from app.api.bodies import json_body, read_json
from app.api.forms import MAX_FIELD_BYTES, Form, FormFile, FormLimits, form_body, received_form
from app.api.services import TheServices
from app.api.voice_views import sample_json
from app.errors import InvalidRequest
from app.platform.file_names import shown_name
from app.voices import transcripts
from app.voices.ingest import Rejected, SentFile
from app.voices.transcripts import MAX_TRANSCRIPT_CHARS

FIELDS = {"files": "files", "transcripts": "texts?", "manifest": "file?"}

router = APIRouter(tags=["voices"])


class NewTranscript(BaseModel):
    """The body of `PUT …/samples/{sample_id}/transcript`."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, description="With a word in it.", json_schema_extra={"pattern": r"\w"})


@router.post("/v1/voices/{voice_id}/samples", status_code=201, openapi_extra=form_body(**FIELDS))
async def add(voice_id: str, request: Request, services: TheServices, _: Cloner) -> dict[str, Any]:
    """Add recordings: `samples` are those kept, `rejected` the others and why. 400 only where none could be used."""
    record = await services.catalog.voices.get(voice_id)
    cloning = services.settings.cloning
    limits = FormLimits.many_files(cloning.max_sample_bytes, parts=2 * cloning.max_samples + 2)
    async with received_form(request, services.uploads_directory, limits) as form:
        files, strays = await asyncio.to_thread(_sorted, form)
        samples, rejected = await services.ingest.keep_samples(record, files)
    for sample in samples:
        await services.audit("sample.create", sample.id)
    rejected += [Rejected(name, InvalidRequest(why)) for name, why in strays]
    record = await services.catalog.voices.get(voice_id)
    return {
        "samples": [sample_json(sample) for sample in samples],
        "rejected": [_rejected_json(one) for one in rejected],
        "sample_count": record.sample_count,
        "sample_s": record.sample_s,
    }


@router.get("/v1/voices/{voice_id}/samples")
async def list_samples(voice_id: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    """The recordings, the oldest first."""
    await services.catalog.voices.get(voice_id)
    samples = await services.catalog.voices.samples(voice_id)
    return {"object": "list", "data": [sample_json(sample) for sample in samples]}


@router.get("/v1/voices/{voice_id}/samples/{sample_id}")
async def one(voice_id: str, sample_id: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    return sample_json(await services.catalog.voices.sample(voice_id, sample_id))


@router.put("/v1/voices/{voice_id}/samples/{sample_id}/transcript", openapi_extra=json_body(NewTranscript))
async def set_transcript(
    voice_id: str, sample_id: str, request: Request, services: TheServices, _: Cloner
) -> dict[str, Any]:
    """What is said in a recording."""
    wanted = await read_json(request, NewTranscript, max_bytes=4096 + 12 * MAX_TRANSCRIPT_CHARS)
    text = transcripts.transcript(wanted.text)
    if text is None:
        raise InvalidRequest("text: it has no words", param="text")
    await services.catalog.voices.set_transcript(voice_id, sample_id, text)
    await services.audit("sample.transcribe", sample_id)
    return sample_json(await services.catalog.voices.sample(voice_id, sample_id))


@router.delete("/v1/voices/{voice_id}/samples/{sample_id}")
async def delete(voice_id: str, sample_id: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    await services.ingest.delete_sample(voice_id, sample_id)
    await services.audit("sample.delete", sample_id)
    return {"id": sample_id, "deleted": True}


def _sorted(form: Form) -> tuple[list[SentFile], list[tuple[str, str]]]:
    """The recordings of a form with their transcripts, and the words that belong to none of them. Blocks: it reads."""
    for name in [name for name, _ in form.fields] + [file.field for file in form.files]:
        if name.removesuffix("[]") not in FIELDS:
            raise InvalidRequest(f"{name[:64]!r} is no field of this form; it has: {', '.join(FIELDS)}", param="form")
    sent = [file for file in form.files if file.field.startswith("files")]
    texts = _Texts()
    manifests = form.values("manifest") + [
        transcripts.decoded(texts.read(file), name=shown_name(file.name))
        for file in form.files
        if file.field == "manifest"
    ]
    if len(manifests) > 1:
        raise InvalidRequest("manifest: there are several; send one", param="manifest")
    files = [file for file in sent if not transcripts.is_sidecar(file.name)]
    if not files:
        raise InvalidRequest("the form has no recordings; send them as `files`", param="files")
    names = [shown_name(file.name) for file in files]
    sidecars: list[tuple[str, str]] = []
    unread: list[tuple[str, str]] = []
    for name, data in [(shown_name(file.name), texts.read(file)) for file in sent if transcripts.is_sidecar(file.name)]:
        try:
            sidecars.append((name, transcripts.decoded(data, name=name)))
        except InvalidRequest as error:
            unread.append((name, error.message))
    words, strays = transcripts.assign(
        names,
        given=form.values("transcripts") + form.values("transcripts[]"),
        manifest=transcripts.parse_manifest(manifests[0]) if manifests else [],
        sidecars=sidecars,
    )
    paths = [file.path if file.whole else None for file in files]
    return [SentFile(*sent) for sent in zip(names, paths, words, strict=True)], unread + strays


class _Texts:
    """Reads text files, as much of them as fits into memory well."""

    def __init__(self) -> None:
        self._left_bytes = MAX_FIELD_BYTES

    def read(self, file: FormFile) -> bytes:
        self._left_bytes -= file.size_bytes
        if not file.whole or self._left_bytes < 0:
            raise InvalidRequest(f"the form's text files have more than {MAX_FIELD_BYTES} bytes", param=file.field)
        return file.path.read_bytes()


def _rejected_json(rejected: Rejected) -> dict[str, str]:
    return {"file_name": rejected.file_name, "code": rejected.error.code, "message": rejected.error.message}
