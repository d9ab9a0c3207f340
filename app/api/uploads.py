"""Large sets of recordings, sent straight to the object store: `/v1/voices/{id}/uploads`. The scope is `clone`.

A client announces its files and gets an address for each, which takes one PUT of exactly that size within fifteen
minutes; then it says that the file is there, and only then is it probed and kept. Either can be repeated: what was
announced and not sent is announced again, and a finished upload answers with its recording. The addresses are those of
the store as the front door knows it, so clients must be able to reach that. `app.voices.uploads` does it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import Cloner
from app.api.bodies import json_body, read_json
from app.api.services import TheServices
from app.api.voice_views import sample_json
from app.voices import transcripts
from app.voices.transcripts import MAX_TRANSCRIPT_CHARS
from app.voices.uploads import EXPIRES_S

MAX_FILES = 1000

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
    wanted = await read_json(request, NewUploads, max_bytes=2**20, max_values=3 * MAX_FILES)
    uploads = await services.uploads.announce(record, [(file.file_name, file.size_bytes) for file in wanted.files])
    return {"uploads": [asdict(upload) for upload in uploads], "method": "PUT", "expires_s": EXPIRES_S}


@router.post("/v1/voices/{voice_id}/uploads/{upload_id}", openapi_extra=json_body(Uploaded))
async def complete(voice_id: str, upload_id: str, request: Request, services: TheServices, _: Cloner) -> dict[str, Any]:
    """The file is there: look into it and keep it as the recording of the upload's id. It can be repeated."""
    await services.catalog.voices.get(voice_id)
    wanted = await read_json(request, Uploaded, max_bytes=4096 + 12 * MAX_TRANSCRIPT_CHARS)
    transcript = transcripts.transcript(wanted.transcript or "")
    sample = await services.uploads.complete(voice_id, upload_id, transcript)
    await services.audit("sample.create", sample.id)
    return sample_json(sample)
