"""The recordings of a voice, sent in forms: `/v1/voices/{id}/samples`. The scope is `clone`.

A form has any number of `files`, of WAV, FLAC, MP3, OGG or M4A, and the words to them, if they are known, in one of
three ways: `transcripts` (as many as files, in their order), one `manifest` (`app.voices.transcripts`), or `.txt` files
among the others with a recording's name. Each file is answered for: a bad one never spoils the rest. For sets above a
few gigabytes, or connections that break, there is `app.api.uploads`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from app.api.bodies import MAX_FIELD_BYTES, Form, FormFile, FormLimits, form_body, json_body, read_json, received_form
from app.api.services import Services, TheServices
from app.api.voices import Cloner
from app.errors import CarillonError, InvalidRequest, NotFound, RecordingUnfit
from app.voices import transcripts
from app.voices.models import Sample
from app.voices.transcripts import MAX_TRANSCRIPT_CHARS, shown_name

MAX_LARGEST_FILES = 4
"""A form may be so large as this many of the largest files."""

FIELDS = {"files": "files", "transcripts": "texts", "manifest": "file"}
FILES_AT_ONCE = 2

router = APIRouter(tags=["voices"])


@dataclass(frozen=True)
class Rejected:
    """A file that was not kept, and why."""

    file_name: str
    error: CarillonError

    def json(self) -> dict[str, str]:
        return {"file_name": self.file_name, "code": self.error.code, "message": self.error.message}


class NewTranscript(BaseModel):
    """The body of `PUT …/samples/{sample_id}/transcript`."""

    model_config = ConfigDict(extra="forbid")

    text: str


@router.post("/v1/voices/{voice_id}/samples", status_code=201, openapi_extra=form_body(**FIELDS))
async def add(voice_id: str, request: Request, services: TheServices, _: Cloner) -> dict[str, Any]:
    """Add recordings: `samples` are those kept, `rejected` the others and why. 400 only where none could be used."""
    record = await services.catalog.voices.get(voice_id)
    cloning = services.settings.cloning
    limits = FormLimits(
        file_bytes=cloning.max_sample_bytes,
        total_bytes=MAX_LARGEST_FILES * cloning.max_sample_bytes,
        parts=2 * cloning.max_samples + 2,
    )
    async with received_form(request, services.uploads_directory, limits) as form:
        files, words, strays = await asyncio.to_thread(_sorted, form)
        room = cloning.max_samples - record.sample_count
        samples, rejected = await _keep_all(services, voice_id, list(zip(files, words, strict=True)), room)
    if not samples:
        raise _nothing_usable(rejected)
    rejected += [Rejected(name, InvalidRequest(why)) for name, why in strays]
    record = await services.catalog.voices.get(voice_id)
    return {
        "samples": [sample_json(sample) for sample in samples],
        "rejected": [one.json() for one in rejected],
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
    return sample_json(await the_sample(services, voice_id, sample_id))


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
    return sample_json(await the_sample(services, voice_id, sample_id))


@router.delete("/v1/voices/{voice_id}/samples/{sample_id}")
async def delete(voice_id: str, sample_id: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    sample = await the_sample(services, voice_id, sample_id)
    await services.catalog.voices.delete_sample(voice_id, sample_id)
    await services.ingest.discard(sample.object_key)
    return {"id": sample_id, "deleted": True}


def sample_json(sample: Sample) -> dict[str, Any]:
    return sample.model_dump(mode="json", exclude={"object_key"})


async def the_sample(services: Services, voice_id: str, sample_id: str) -> Sample:
    """Raises NotFound."""
    await services.catalog.voices.get(voice_id)
    for sample in await services.catalog.voices.samples(voice_id):
        if sample.id == sample_id:
            return sample
    raise NotFound(f"the voice {voice_id} has no recording {sample_id[:64]!r}", param="sample_id")


def _sorted(form: Form) -> tuple[list[FormFile], list[str | None], list[tuple[str, str]]]:
    """The recordings of a form, the transcript of each, and the words that belong to none of them. Blocks: it reads."""
    for name in [name for name, _ in form.fields] + [file.field for file in form.files]:
        if name.removesuffix("[]") not in FIELDS:
            raise InvalidRequest(f"{name[:64]!r} is no field of this form; it has: {', '.join(FIELDS)}", param="form")
    sent = [file for file in form.files if file.field.startswith("files")]
    texts = _Texts()
    manifests = form.values("manifest") + [texts.read(file) for file in form.files if file.field == "manifest"]
    if len(manifests) > 1:
        raise InvalidRequest("manifest: there are several; send one", param="manifest")
    files = [file for file in sent if not transcripts.is_sidecar(file.name)]
    if not files:
        raise InvalidRequest("the form has no recordings; send them as `files`", param="files")
    words, strays = transcripts.assign(
        [shown_name(file.name) for file in files],
        given=form.values("transcripts") + form.values("transcripts[]"),
        manifest=transcripts.parse_manifest(manifests[0]) if manifests else [],
        sidecars=[(shown_name(file.name), texts.read(file)) for file in sent if transcripts.is_sidecar(file.name)],
    )
    return files, words, strays


class _Texts:
    """Reads text files, as much of them as fits into memory well."""

    def __init__(self) -> None:
        self._left_bytes = MAX_FIELD_BYTES

    def read(self, file: FormFile) -> str:
        self._left_bytes -= file.size_bytes
        if not file.whole or self._left_bytes < 0:
            raise InvalidRequest(f"the form's text files have more than {MAX_FIELD_BYTES} bytes", param=file.field)
        return file.path.read_text("utf-8-sig", errors="replace")


async def _keep_all(
    services: Services, voice_id: str, files: list[tuple[FormFile, str | None]], room: int
) -> tuple[list[Sample], list[Rejected]]:
    """Keep each of `files` with its transcript, at most `room`. Raises NotFound when the voice is deleted meanwhile."""
    lanes = asyncio.Semaphore(FILES_AT_ONCE)

    async def outcome(place: int, file: FormFile, transcript: str | None) -> Sample | Rejected:
        name = shown_name(file.name)
        try:
            if not file.whole:
                limit = services.settings.cloning.max_sample_bytes
                raise RecordingUnfit(f"{name} has more than {limit} bytes; cut it into parts.")
            if place >= room:
                most = services.settings.cloning.max_samples
                raise RecordingUnfit(f"{name} is one too many: a voice has at most {most} recordings; delete some.")
            async with lanes:
                sample_id = f"smp_{secrets.token_hex(8)}"
                return await services.ingest.keep_sample(
                    voice_id, file.path, sample_id=sample_id, file_name=name, transcript=transcript
                )
        except CarillonError as error:
            return Rejected(name, error)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(place, *file)) for place, file in enumerate(files)]
    outcomes = [task.result() for task in tasks]
    rejected = [one for one in outcomes if isinstance(one, Rejected)]
    for one in rejected:
        if isinstance(one.error, NotFound):
            raise one.error
    return [one for one in outcomes if isinstance(one, Sample)], rejected


def _nothing_usable(rejected: Iterable[Rejected]) -> CarillonError:
    """The one error for a form of which nothing was kept: ours if it is our fault, else what is wrong with each."""
    errors = [one.error for one in rejected]
    for error in errors:
        if not isinstance(error, InvalidRequest):
            return error
    shown = " ".join(error.message for error in errors[:5])
    more = f" And {len(errors) - 5} more." if len(errors) > 5 else ""
    return RecordingUnfit(f"none of the {len(errors)} files can be used. {shown}{more}", param="files")
