"""Dictionaries of a key and of a voice: kept, and heard by whatever is spoken."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.speech.choices import Scope
from app.speech.protocol import Done
from app.voices.pronunciations import PronunciationStore
from tests.api.conftest import House
from tests.support.fake_worker import FakeWorker
from tests.support.library import Library
from tests.support.session_client import SessionsClient, error_of, speak

pytestmark = pytest.mark.anyio

MINE = "/v1/pronunciations"
VOICES = "/v1/voices/slt/pronunciations"


def told(worker: FakeWorker) -> list[dict[str, str]]:
    """What each session so far was to say otherwise."""
    return [dict(assign.text.respellings) for assign in worker.assigned]


async def test_a_dictionary_is_kept_replaced_and_forgotten(house: House) -> None:
    assert (await house.http.get(MINE)).json() == {"object": "pronunciations", "words": {}}
    await house.http.put(MINE, json={"words": {"GIF": "jif", "nginx": "engine x"}})
    await house.http.put(MINE, json={"words": {"GIF": "jif"}})
    assert (await house.http.get(MINE)).json()["words"] == {"GIF": "jif"}
    assert (await house.http.delete(MINE)).json()["words"] == {}
    assert (await house.http.get(MINE)).json()["words"] == {}


async def test_speech_and_sessions_hear_the_keys_words_and_the_voices_before_them(
    house: House, worker: FakeWorker, client: SessionsClient
) -> None:
    await house.http.put(MINE, json={"words": {"GIF": "jif", "SQL": "sequel"}})
    async with house.holder_of(Scope.CLONE) as owner:
        await owner.put(VOICES, json={"words": {"gif": "ghif"}})
    await speak(house, "A GIF.")
    await client.say("s1", "A GIF.")
    await client.until(Done, "s1")
    await speak(house, "A GIF.", voice="rms")
    assert told(worker) == [{"gif": "ghif", "SQL": "sequel"}] * 2 + [{"GIF": "jif", "SQL": "sequel"}]


async def test_another_keys_words_are_its_own(house: House, worker: FakeWorker) -> None:
    async with house.holder_of(Scope.SPEAK) as other:
        await other.put(MINE, json={"words": {"GIF": "jif"}})
    await speak(house, "A GIF.")
    assert told(worker) == [{}]


async def test_a_voices_words_are_its_owners_affair(house: House, worker: FakeWorker) -> None:
    assert (await house.http.put(VOICES, json={"words": {}})).status_code == 403
    async with house.holder_of(Scope.CLONE) as owner:
        assert (await owner.put("/v1/voices/nobody/pronunciations", json={"words": {}})).status_code == 404
        await owner.put(VOICES, json={"words": {"Nguyen": "win"}})
        assert (await owner.get(VOICES)).json()["words"] == {"Nguyen": "win"}
        await owner.delete(VOICES)
        assert (await owner.get(VOICES)).json()["words"] == {}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"GIF": "jif", "gif": "ghif"}, "are the same word in any case"),
        ({"": "nothing"}, "at least 1 character"),
        ({"a" * 101: "long"}, "more than 100 characters"),
        ({"GIF": 3}, "must be a text"),
        ({f"w{n}": "x" * 60 for n in range(900)}, "are kept"),
        ({f"w{n}": "x" for n in range(1001)}, "at most 1001 are accepted|more than 1000 entries"),
    ],
)
async def test_what_cannot_be_used_is_refused_by_name(house: House, words: dict[str, Any], complaint: str) -> None:
    answer = await house.http.put(MINE, json={"words": words})
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (400, "invalid_request")
    assert any(part in error["message"] for part in complaint.split("|")), error


async def test_narrations_hear_them_too_and_their_own_before_them(library: Library) -> None:
    async with library.house.holder_of(Scope.SPEAK, Scope.NARRATE) as http:
        await http.put(MINE, json={"words": {"GIF": "jif", "SQL": "sequel"}})
        made: httpx.Response = await http.post(
            "/v1/narrations",
            json={"voice": "slt", "text": "A GIF.", "options": {"replacements": {"gif": "ghif"}}},
        )
    assert made.status_code == 202, made.text
    assert made.json()["options"]["replacements"] == {"gif": "ghif", "SQL": "sequel"}


async def test_each_voice_of_a_narrations_cast_says_its_own_words(library: Library) -> None:
    async with library.house.holder_of(Scope.SPEAK, Scope.NARRATE, Scope.CLONE) as http:
        await http.put(MINE, json={"words": {"SQL": "sequel"}})
        await http.put("/v1/voices/rms/pronunciations", json={"words": {"GIF": "jif"}})
        made: httpx.Response = await http.post(
            "/v1/narrations",
            json={"voice": "slt", "cast": {"hero": "rms"}, "text": "A GIF.\n\n[hero] A GIF, too."},
        )
    assert made.status_code == 202, made.text
    options = made.json()["options"]
    assert (options["replacements"], options["voice_replacements"]) == ({"SQL": "sequel"}, {"rms": {"GIF": "jif"}})


async def test_a_front_door_asks_once_a_second(house: House) -> None:
    clock = [0.0]
    store = PronunciationStore(house.catalog.database, now=house.catalog.pronunciations._now, clock=lambda: clock[0])
    assert await store._recent("key:x") == {}
    await house.catalog.pronunciations.put("key:x", {"a": "b"})
    assert await store._recent("key:x") == {}
    clock[0] = 1.0
    assert await store._recent("key:x") == {"a": "b"}
