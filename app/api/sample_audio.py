"""A recording as it was uploaded: `/v1/voices/{id}/samples/{sample_id}/audio`. Scope `clone`."""

from __future__ import annotations

import asyncio
from itertools import chain

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from app.api.access import Cloner
from app.api.services import TheServices

router = APIRouter(tags=["voices"])


@router.get("/v1/voices/{voice_id}/samples/{sample_id}/audio", response_class=Response)
async def sample_audio(voice_id: str, sample_id: str, services: TheServices, _: Cloner) -> Response:
    """The file, byte for byte."""
    sample = await services.catalog.voices.sample(voice_id, sample_id)
    pieces = services.store.read_range(sample.object_key, 0, sample.size_bytes)
    first = await asyncio.to_thread(next, pieces, b"")  # a store that is away is told as what it is
    headers = {"content-length": str(sample.size_bytes), "cache-control": "private, max-age=86400, immutable"}
    return StreamingResponse(chain([first], pieces), media_type=sample.content_type, headers=headers)
