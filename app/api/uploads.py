"""Large sets of recordings, sent straight to the object store: `/v1/voices/{id}/uploads`. The scope is `clone`.

A client announces its files and gets an address for each, which takes one PUT of exactly that size within fifteen
minutes; then it says that the file is there, and only then is it looked into and kept. Either can be repeated: what was
announced and not sent is announced again, and a finished upload answers with its recording. The addresses are those of
the store as the front door knows it, so clients must be able to reach that.

What is announced together is kept in one object beside the uploads, since nothing else needs to know of it.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import json_body, read_json, workspace
from app.api.samples import sample_json, the_sample
from app.api.services import Services, TheServices
from app.api.voices import Cloner
from app.errors import InvalidRequest, NotFound, ObjectMissing, RecordingUnfit, StoreUnavailable
from app.platform.object_keys import voice_prefix
from app.voices import transcripts
from app.voices.ingest import to_the_end
from app.voices.models import Sample
from app.voices.transcripts import MAX_TRANSCRIPT_CHARS, shown_name

EXPIRES_S = 15 * 60
MAX_FILES = 1000

_UPLOAD_ID = re.compile(r"up_([0-9a-f]{16})_([0-9]{4})")

router = APIRouter(tags=["voices"])


class Announced(BaseModel):
    """One file that shall be sent."""

    model_config = ConfigDict(extra="forbid")

    file_name: str = Field(min_length=1, max_length=4096)
    size_bytes: int = Field(ge=1)


class NewUploads(BaseModel):
    """The body of `POST /v1/voices/{id}/uploads`."""

    model_config = ConfigDict(extra="forbid")

    files: list[Announced] = Field(min_length=1, max_length=MAX_FILES)


class Uploaded(BaseModel):
    """The body of `POST /v1/voices/{id}/uploads/{upload_id}`."""

    model_config = ConfigDict(extra="forbid")

    transcript: str | None = None


@router.post("/v1/voices/{voice_id}/uploads", status_code=201, openapi_extra=json_body(NewUploads))
async def announce(voice_id: str, request: Request, services: TheServices, _: Cloner) -> dict[str, Any]:
    """An address for each file, in their order."""
    record = await services.catalog.voices.get(voice_id)
    wanted = await read_json(request, NewUploads, max_bytes=2**20)
    cloning, store = services.settings.cloning, services.store
    if record.sample_count + len(wanted.files) > cloning.max_samples:
        raise RecordingUnfit(
            f"{len(wanted.files)} more recordings than {record.sample_count} are too many; "
            f"a voice has at most {cloning.max_samples}",
            param="files",
        )
    files = [(shown_name(file.file_name), file.size_bytes) for file in wanted.files]
    for name, size_bytes in files:
        if size_bytes > cloning.max_sample_bytes:
            raise RecordingUnfit(
                f"{name} has {size_bytes} bytes; at most {cloning.max_sample_bytes}: cut it into parts", param="files"
            )
    batch = secrets.token_hex(8)
    await asyncio.to_thread(store.put, _batch_key(voice_id, batch), json.dumps(files).encode())
    uploads = [
        {
            "id": (upload_id := f"up_{batch}_{place:04}"),
            "file_name": name,
            "url": store.put_url(_upload_key(voice_id, upload_id), size_bytes=size_bytes, expires_s=EXPIRES_S),
        }
        for place, (name, size_bytes) in enumerate(files)
    ]
    return {"uploads": uploads, "method": "PUT", "expires_s": EXPIRES_S}


@router.post("/v1/voices/{voice_id}/uploads/{upload_id}", openapi_extra=json_body(Uploaded))
async def complete(voice_id: str, upload_id: str, request: Request, services: TheServices, _: Cloner) -> dict[str, Any]:
    """The file is there: look into it and keep it as the recording of the upload's id. It can be repeated."""
    await services.catalog.voices.get(voice_id)
    wanted = await read_json(request, Uploaded, max_bytes=4096 + 12 * MAX_TRANSCRIPT_CHARS)
    transcript = transcripts.transcript(wanted.transcript or "")
    try:
        return sample_json(await the_sample(services, voice_id, upload_id))
    except NotFound:
        pass
    file_name = await _announced(services, voice_id, upload_id)
    try:
        sample = await _take(services, voice_id, upload_id, file_name, transcript)
    except StoreUnavailable:
        # Another front door may have been asked the same and was faster: then the row is there, and cannot be twice.
        try:
            sample = await the_sample(services, voice_id, upload_id)
        except NotFound:
            sample = None
        if sample is None:
            raise
    except InvalidRequest:
        await services.ingest.discard(_upload_key(voice_id, upload_id))
        raise
    await services.ingest.discard(_upload_key(voice_id, upload_id))
    return sample_json(sample)


async def _announced(services: Services, voice_id: str, upload_id: str) -> str:
    """The file name of an announced upload. Raises NotFound."""
    missing = NotFound(f"the voice {voice_id} has no upload {upload_id[:64]!r}; announce it first", param="upload_id")
    match = _UPLOAD_ID.fullmatch(upload_id)
    if match is None:
        raise missing
    try:
        files = json.loads(await asyncio.to_thread(services.store.get, _batch_key(voice_id, match[1])))
    except ObjectMissing:
        raise missing from None
    if int(match[2]) >= len(files):
        raise missing
    return files[int(match[2])][0]


async def _take(services: Services, voice_id: str, upload_id: str, file_name: str, transcript: str | None) -> Sample:
    store, key = services.store, _upload_key(voice_id, upload_id)
    limit = services.settings.cloning.max_sample_bytes
    try:
        if await asyncio.to_thread(store.size_bytes, key) > limit:
            raise RecordingUnfit(f"{file_name} has more than {limit} bytes; cut it into parts.")
        async with workspace(services.uploads_directory) as directory:
            path = directory / "recording"
            folder, _, name = key.rpartition("/")
            await to_the_end(asyncio.to_thread(store.fetch, store.uri(folder), name, path))
            # What was looked into is what is kept: the address may still take another file.
            return await services.ingest.keep_sample(
                voice_id, path, sample_id=upload_id, file_name=file_name, transcript=transcript
            )
    except ObjectMissing:
        raise NotFound(
            f"{file_name} has not been sent; PUT it to its address first, or announce it again", param="upload_id"
        ) from None


def _batch_key(voice_id: str, batch: str) -> str:
    return f"{voice_prefix(voice_id)}uploads/{batch}.json"


def _upload_key(voice_id: str, upload_id: str) -> str:
    return f"{voice_prefix(voice_id)}uploads/{upload_id}"
