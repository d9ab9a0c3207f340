"""Voices, their recordings, consent and versions on a real SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from app.catalog import Catalog
from app.errors import Conflict, NotFound
from app.platform.tables import JobRow, VoiceRow
from app.speech.recipe import CloneConfig
from app.voices.models import AudioFacts, CloneKind, Consent
from tests.support.published import publish

pytestmark = pytest.mark.anyio

PEPPER = SecretStr("pepper")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FACTS = AudioFacts(container="wav", sample_rate_hz=48_000, channels=1, duration_s=61.5)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/catalog.db"


@pytest.fixture
async def catalog(url: str) -> AsyncIterator[Catalog]:
    catalog = Catalog(url, pepper=PEPPER, now=lambda: NOON)
    await catalog.migrate()
    yield catalog
    await catalog.aclose()


async def add_sample(catalog: Catalog, voice_id: str, name: str = "a.wav") -> None:
    await catalog.voices.add_sample(
        voice_id, sample_id=name, file_name=name, size_bytes=10, facts=FACTS, transcript=None, object_key=name
    )


async def version(catalog: Catalog, name: str = "Mary", **changes: str):
    return await publish(catalog, name, **({"uri": "s3://b/v/", "sha256": {"a": "0"}} | changes))  # pyright: ignore[reportArgumentType]


async def test_a_new_voice_has_no_version_and_cannot_be_spoken_with(catalog: Catalog) -> None:
    made = await catalog.voices.create("Mary", model="standin", description="warm")
    assert await catalog.voices.get(made.id) == made
    assert (made.version, made.prompt_name) == (0, made.id)
    assert len(made.consent_number) == 8
    assert await catalog.voices.published() == []


async def test_a_name_is_unique_among_the_living_voices_of_a_model(catalog: Catalog) -> None:
    mary = await catalog.voices.create("Mary", model="standin")
    await catalog.voices.create("Mary", model="orpheus")
    with pytest.raises(Conflict, match="choose another name"):
        await catalog.voices.create("Mary", model="standin")
    await catalog.voices.delete(mary.id)
    assert (await catalog.voices.create("Mary", model="standin")).id != mary.id


async def test_a_voice_counts_its_recordings_and_shows_its_newest_consent(catalog: Catalog) -> None:
    made = await catalog.voices.create("Mary", model="standin")
    await add_sample(catalog, made.id, "a.wav")
    await add_sample(catalog, made.id, "b.wav")
    consent = Consent(
        id="c1", voice_id=made.id, kind="operator", number=made.consent_number, statement="drawer 3", created_at=NOON
    )
    await catalog.voices.add_consent(consent)
    record = await catalog.voices.get(made.id)
    assert (record.sample_count, record.sample_s, record.consent) == (2, 123.0, consent)
    await catalog.voices.delete_sample(made.id, "a.wav")
    assert [sample.file_name for sample in await catalog.voices.samples(made.id)] == ["b.wav"]


async def test_a_recording_that_is_not_there_is_not_found(catalog: Catalog) -> None:
    made = await catalog.voices.create("Mary", model="standin")
    other = await catalog.voices.create("Ann", model="standin")
    await add_sample(catalog, other.id)
    for wrong in ("nope", "a.wav"):
        with pytest.raises(NotFound, match=wrong):
            await catalog.voices.delete_sample(made.id, wrong)


async def test_a_version_is_spoken_with_once_it_is_in_force(catalog: Catalog) -> None:
    made = await catalog.voices.create("Mary", model="standin")
    adapter = await catalog.voices.add_version(made.id, uri="s3://b/1/", sha256={"a": "0"}, rank=16)
    assert await catalog.voices.published() == []
    voice = await catalog.voices.point(made.id, adapter.version)
    assert voice.adapter == adapter
    assert await catalog.voices.published() == [voice]


async def test_a_voice_goes_back_to_the_version_before(catalog: Catalog) -> None:
    voices = [await version(catalog, uri=f"s3://b/{number}/") for number in (1, 2, 3)]
    await catalog.voices.add_version(voices[0].id, uri="s3://b/never/", sha256={"a": "0"}, rank=16)
    assert await catalog.voices.roll_back(voices[0].id) == voices[1]
    assert await catalog.voices.roll_back(voices[0].id) == voices[0]
    with pytest.raises(NotFound, match="no version before 1; it has: 1, 2, 3"):
        await catalog.voices.roll_back(voices[0].id)
    assert await catalog.voices.roll_back(voices[0].id, 3) == voices[2]
    with pytest.raises(NotFound, match="no published version 4"):
        await catalog.voices.roll_back(voices[0].id, 4)


async def test_no_two_adapters_ever_share_a_lora_id(catalog: Catalog) -> None:
    first = [await version(catalog, name) for name in ("Mary", "Ann", "Mary")]
    await catalog.voices.delete(first[0].id)
    voices = [*first, await version(catalog, "Mary")]
    assert len({voice.adapter.lora_id for voice in voices if voice.adapter}) == len(voices)


async def test_versions_made_at_once_from_several_connections_have_their_own_numbers(
    catalog: Catalog, url: str
) -> None:
    made = await catalog.voices.create("Mary", model="standin")
    others = [Catalog(url, pepper=PEPPER) for _ in range(4)]
    adapters = await asyncio.gather(
        *(other.voices.add_version(made.id, uri="s3://b/", sha256={}, rank=16) for other in others for _ in range(5))
    )
    assert sorted(adapter.version for adapter in adapters) == list(range(1, 21))
    for other in others:
        await other.aclose()


async def test_a_deleted_voices_jobs_say_nothing_of_its_recordings(catalog: Catalog) -> None:
    voice = await catalog.voices.create("Mary", model="standin")
    job = await catalog.jobs.create(voice.id, kind=CloneKind.CLONE, config=CloneConfig())
    words = {
        "report": {"files": ["mary-at-home.wav"]},
        "gate": {"heard": "at home"},
        "error": {"code": "x", "message": ""},
    }
    said = update(JobRow).where(JobRow.id == job.id).values(**words)

    async def left() -> dict[str, Any]:
        async with catalog.database.writing() as connection:
            [row] = await connection.execute(select(*JobRow.__table__.c).where(JobRow.id == job.id))
            await connection.execute(said)  # as a process does that runs on for a moment
        return {name: row._mapping[name] for name in words}

    assert (await left())["report"] is None
    await catalog.voices.delete(voice.id)
    assert set((await left()).values()) == {None}
    await catalog.voices.blank_jobs([voice.id])
    assert set((await left()).values()) == {None}


async def test_a_deleted_voice_leaves_a_tombstone_and_nothing_else(catalog: Catalog) -> None:
    voice = await version(catalog)
    await add_sample(catalog, voice.id)
    job = await catalog.jobs.create(voice.id, kind=CloneKind.CLONE, config=CloneConfig())
    await catalog.voices.delete(voice.id)
    assert await catalog.voices.published() == []
    assert await catalog.voices.samples(voice.id) == []
    assert await catalog.voices.tombstones(since=NOON) == [voice.id]
    assert (await catalog.jobs.get(job.id)).cancel_requested
    async with catalog.database.reading() as connection:
        [row] = await connection.execute(select(*VoiceRow.__table__.c).where(VoiceRow.id == voice.id))
    assert not any((row.name, row.language, row.description, row.prompt_name, row.consent_number))
    for attempt in (catalog.voices.get(voice.id), catalog.voices.delete(voice.id), catalog.voices.point(voice.id, 1)):
        with pytest.raises(NotFound, match=voice.id):
            await attempt
