"""OpenAI's custom voices, through its own SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest

from tests.api.conftest import Studio
from tests.support.recordings import recording
from tests.support.speech import spoken_consent

pytestmark = pytest.mark.anyio


@pytest.fixture
async def sdk(studio: Studio) -> AsyncIterator[openai.AsyncOpenAI]:
    key = studio.http.headers["authorization"].removeprefix("Bearer ")
    async with openai.AsyncOpenAI(base_url=f"{studio.house.url}/v1", api_key=key, max_retries=0) as client:
        yield client


async def test_a_consent_and_a_sample_become_a_voice(studio: Studio, sdk: openai.AsyncOpenAI) -> None:
    consents = sdk.audio.voice_consents
    consent = await consents.create(name="Mary's word", language="en-US", recording=("me.wav", spoken_consent()))
    assert consent.id.startswith("cons_")
    assert (consent.object, consent.name, consent.language) == ("audio.voice_consent", "Mary's word", "en-US")
    assert await consents.retrieve(consent.id) == consent
    assert [one.id async for one in consents.list()] == [consent.id]

    voice = await sdk.audio.voices.create(name="Mary", audio_sample=("a.wav", recording()), consent=consent.id)
    assert (voice.object, voice.name, voice.type) == ("audio.voice", "Mary", "audio_sample")
    ours = (await studio.http.get(f"/v1/voices/{voice.id}")).json()
    assert (ours["name"], ours["language"], ours["sample_count"], ours["state"]) == ("Mary", "en-US", 1, "collecting")
    assert (ours["consent"]["id"], ours["consent"]["number"]) == (consent.id, "")

    with pytest.raises(openai.ConflictError, match="belongs to the voice"):
        await sdk.audio.voices.create(name="Anna", audio_sample=("a.wav", recording()), consent=consent.id)
    with pytest.raises(openai.ConflictError, match="delete that voice"):
        await consents.delete(consent.id)

    assert (await sdk.audio.voices.delete(voice.id)).deleted
    assert [one.id async for one in consents.list()] == []
    assert studio.keys(voice.id) == []


async def test_a_consent_is_renamed_and_deleted_before_its_voice_is_made(
    studio: Studio, sdk: openai.AsyncOpenAI
) -> None:
    consents = sdk.audio.voice_consents
    consent = await consents.create(name="Mary", language="de", recording=("me.wav", recording(3)))
    assert (await consents.update(consent.id, name="Anna")).name == "Anna"
    deleted = await consents.delete(consent.id)
    assert (deleted.id, deleted.deleted) == (consent.id, True)
    with pytest.raises(openai.NotFoundError):
        await consents.retrieve(consent.id)
    assert (await studio.http.get("/v1/voices")).json()["data"] == []


async def test_the_list_of_consents_has_pages(sdk: openai.AsyncOpenAI) -> None:
    consents = sdk.audio.voice_consents
    made = [(await consents.create(name=name, language="de", recording=("me.wav", recording(3)))).id for name in "abc"]
    assert [one.id async for one in consents.list(limit=1)] == made[::-1]
    first = await consents.list(limit=2)
    assert (first.has_next_page(), [one.id for one in first.data]) == (True, made[:0:-1])


async def test_what_is_refused_leaves_no_voice(studio: Studio, sdk: openai.AsyncOpenAI) -> None:
    consents, voices = sdk.audio.voice_consents, sdk.audio.voices
    with pytest.raises(openai.BadRequestError, match="text file"):
        await consents.create(name="Mary", language="en", recording=("me.wav", b"no audio"))
    with pytest.raises(openai.BadRequestError, match="BCP 47"):
        await consents.create(name="Mary", language="Plain English", recording=("me.wav", recording(3)))
    with pytest.raises(openai.NotFoundError, match="no consent 'cons_x'"):
        await voices.create(name="Mary", audio_sample=("a.wav", recording()), consent="cons_x")
    assert (await studio.http.get("/v1/voices")).json()["data"] == []

    consent = await consents.create(name="Mary", language="de", recording=("me.wav", recording(3)))
    with pytest.raises(openai.BadRequestError, match="text file"):
        await voices.create(name="Anna", audio_sample=("a.wav", b"no audio"), consent=consent.id)
    assert (await consents.retrieve(consent.id)).name == "Mary"
