"""Voices as Cartesia's clients list them: those that can be spoken with here, under their names."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from app.api.access import requires
from app.api.cartesia.wire import CartesiaSharedRoute, TheServices, api_key
from app.speech.choices import Scope
from app.speech.voices import Voice

MAX_PAGE = 100

router = APIRouter(
    route_class=CartesiaSharedRoute, include_in_schema=False, dependencies=[Depends(requires(Scope.SPEAK, api_key))]
)


def voice_json(voice: Voice) -> dict[str, Any]:
    own = voice.adapter is not None
    return {
        "id": voice.id,
        "name": voice.name,
        "description": "",
        "tagline": "",
        "language": voice.language,
        "locales": [],
        "is_owner": own,
        "is_public": not own,
        "access": "private" if own else "public",
        "visibility": "all",
        "created_at": "1970-01-01T00:00:00Z",
    }


@router.get("/voices")
async def list_voices(
    services: TheServices,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 10,
    starting_after: str | None = None,
    q: Annotated[str | None, Query(max_length=256)] = None,
) -> dict[str, Any]:
    """A page of them; the next one starts after the last id of this one."""
    found = [voice for voice in await services.resolver.all() if not q or q.casefold() in voice.name.casefold()]
    ids = [voice.id for voice in found]
    start = ids.index(starting_after) + 1 if starting_after in ids else 0
    page = found[start : start + limit]
    return {"data": [voice_json(voice) for voice in page], "has_more": start + limit < len(found)}


@router.get("/voices/{voice_id}")
async def one_voice(voice_id: str, services: TheServices) -> dict[str, Any]:
    return voice_json(await services.resolver.find(voice_id, None))
