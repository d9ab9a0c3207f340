"""Pronunciation dictionaries: the caller's, `/v1/pronunciations`, and a voice's (scope `clone`).

They are kept and hold for speech, sessions and narrations from the next one on. Words are found whole and in any case;
where several dictionaries have a word, a narration's own goes before the voice's, and that before the key's.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.access import Cloner, requires
from app.api.bodies import json_body, read_json
from app.api.services import TheServices
from app.platform.api_keys import ApiKey
from app.speech.choices import Scope
from app.speech.text.respelling import Respelling, WrittenWord, check_distinct
from app.voices.pronunciations import of_key, of_voice

MAX_WORDS = 1_000
MAX_DICTIONARY_BYTES = 32 * 1024
"""Two of them travel with each session to its worker, in one message."""

MAX_BODY_BYTES = 8 * MAX_DICTIONARY_BYTES

router = APIRouter(tags=["pronunciations"])
Speaker = Annotated[ApiKey | None, Depends(requires(Scope.SPEAK))]


class Dictionary(BaseModel):
    """The body of `PUT …/pronunciations`: all the words there shall be."""

    model_config = ConfigDict(extra="forbid")

    words: dict[WrittenWord, Respelling] = Field(max_length=MAX_WORDS, description="A word, and how to say it.")

    @model_validator(mode="after")
    def _it_can_be_used(self) -> Self:
        check_distinct(self.words)
        size = sum(len(text.encode()) for text in (*self.words, *self.words.values()))
        if size > MAX_DICTIONARY_BYTES:
            raise ValueError(f"words: they have {size} bytes; at most {MAX_DICTIONARY_BYTES} are kept")
        return self


@router.get("/v1/pronunciations")
async def of_my_key(services: TheServices, key: Speaker) -> dict[str, Any]:
    """How this key's texts say words."""
    return _shown(await services.catalog.pronunciations.get(_mine(key)))


@router.put("/v1/pronunciations", openapi_extra=json_body(Dictionary))
async def set_for_my_key(request: Request, services: TheServices, key: Speaker) -> dict[str, Any]:
    """Say words so in all that this key speaks; replaces what there was."""
    return await _kept(request, services, _mine(key))


@router.delete("/v1/pronunciations")
async def forget_for_my_key(services: TheServices, key: Speaker) -> dict[str, Any]:
    return await _put({}, services, _mine(key))


@router.get("/v1/voices/{name}/pronunciations")
async def of_a_voice(name: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    """How a voice says words, for every caller."""
    owner = of_voice(await services.resolver.find(name, None))
    return _shown(await services.catalog.pronunciations.get(owner))


@router.put("/v1/voices/{name}/pronunciations", openapi_extra=json_body(Dictionary))
async def set_for_a_voice(name: str, request: Request, services: TheServices, _: Cloner) -> dict[str, Any]:
    """Let a voice say words so, for every caller; replaces what there was."""
    return await _kept(request, services, of_voice(await services.resolver.find(name, None)))


@router.delete("/v1/voices/{name}/pronunciations")
async def forget_for_a_voice(name: str, services: TheServices, _: Cloner) -> dict[str, Any]:
    return await _put({}, services, of_voice(await services.resolver.find(name, None)))


def _mine(key: ApiKey | None) -> str:
    return of_key(key.id if key else "")


async def _kept(request: Request, services: TheServices, owner: str) -> dict[str, Any]:
    wanted = await read_json(request, Dictionary, max_bytes=MAX_BODY_BYTES, max_values=MAX_WORDS + 1)
    return await _put(wanted.words, services, owner)


async def _put(words: dict[str, str], services: TheServices, owner: str) -> dict[str, Any]:
    await services.catalog.pronunciations.put(owner, words)
    await services.audit("pronunciations.set", owner)
    return _shown(words)


def _shown(words: dict[str, str]) -> dict[str, Any]:
    return {"object": "pronunciations", "words": words}
