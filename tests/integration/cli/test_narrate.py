"""Narrations step by step, as messages bring them: all of it is real but the worker, which hums."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.catalog import Catalog
from app.fleet.registry import Registry, open_redis
from app.narration.captions import vtt
from app.narration.models import Narration, NarrationOptions, NarrationSource, NarrationState, SourceKind, Timeline
from app.narration.rows import new_narration_id
from app.narration.step import Ended, StepContext
from app.narration.word_times import words_in_file
from app.platform.database import utc_now
from app.platform.object_keys import narration_prefix
from app.platform.object_store import ObjectStore
from app.platform.settings import NarrationSettings, Settings, StoreSettings
from app.speech.choices import CaptionsBy, NarrationFormat
from app.speech.voices import AdapterVersion, Voice
from tasks.maintenance import sweep_store
from tasks.narrate import StepRun, work_on
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker, running_worker

pytestmark = pytest.mark.anyio

TEXT = """# One

It was dark. Nobody spoke.

[mary] Who is there?

# Two

The door opened. It was the wind.
"""
SLT = Voice(id="slt", name="slt", model="standin")
RMS = Voice(id="rms", name="rms", model="standin")


@dataclass(frozen=True)
class Study:
    """Where narrations are made; `worker` speaks."""

    settings: Settings
    catalog: Catalog
    store: ObjectStore
    worker: FakeWorker

    @property
    def directory(self) -> Path:
        """For one attempt at a step."""
        return self.settings.data_dir / "narrations" / "attempt"

    async def handed_in(self, text: str = TEXT, **fields: Any) -> str:
        narration_id = new_narration_id()
        key = f"{narration_prefix(narration_id)}source.md"
        self.store.put(key, text.encode())
        source = NarrationSource(kind=SourceKind.MARKDOWN, file_name="a.md", key=key, size_bytes=len(text))
        wanted = {"narration_id": narration_id, "source": source, **fields}
        narration = await self.catalog.narrations.create(
            **{
                "voice": "slt",
                "cast": {"mary": "rms"},
                "voices": {"slt": SLT, "rms": RMS},
                "model": "standin",
                "format": NarrationFormat.WAV,
                "options": NarrationOptions(retakes=0),
                "title": "",
                **wanted,
            }
        )
        return narration.id

    async def steps(self, count: int) -> None:
        for _ in range(count):
            await work_on(self.settings)

    async def over(self, narration_id: str) -> Narration:
        """The narration at its end, one message after the other."""
        async with asyncio.timeout(HANG_S):
            while not (narration := await self.catalog.narrations.get(narration_id)).state.over:
                await work_on(self.settings)
        return narration

    @property
    def said(self) -> list[str]:
        return [utter.text for utter in self.worker.uttered]


@pytest.fixture
async def study(settings: Settings, rclone: StoreSettings, object_store: ObjectStore) -> AsyncIterator[Study]:
    settings = settings.model_copy(
        update={
            "store": rclone.model_copy(update={"bucket": object_store.bucket}),
            "narration": NarrationSettings(max_setbacks=2),
        }
    )
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    await catalog.migrate()
    redis = open_redis(settings)
    await redis.flushdb()
    async with running_worker(Registry(redis, settings), settings) as worker:
        yield Study(settings, catalog, object_store, worker)
    await redis.aclose()
    await catalog.aclose()


async def test_a_text_becomes_a_file_whose_every_sample_is_accounted_for(study: Study) -> None:
    narration_id = await study.handed_in()
    narration = await study.over(narration_id)
    assert (narration.state, narration.error) == (NarrationState.COMPLETED, None)
    assert study.said == [
        "One.", "It was dark. Nobody spoke.", "Who is there?", "Two.", "The door opened. It was the wind.",
    ]  # fmt: skip
    assert [chapter.title for chapter in narration.chapters] == ["One", "Two"]
    assert narration.segments_done == narration.segments == 5
    output = narration.output
    assert output
    timeline = Timeline.model_validate_json(study.store.get(output.timeline_key))
    assert [segment.voice for segment in timeline.segments] == ["slt", "slt", "rms", "slt", "slt"]
    assert round(output.duration_s * output.sample_rate_hz) == timeline.samples == timeline.segments[-1].end_sample
    assert study.store.size_bytes(output.key) == output.size_bytes


async def test_captions_by_word_follow_the_words_through_trims_gaps_and_takes(study: Study) -> None:
    """The worker hums every character for 50 ms, and words have about that share of their segment's time."""
    narration = await study.over(await study.handed_in(options=NarrationOptions(retakes=0, language="de")))
    assert narration.output
    timeline = Timeline.model_validate_json(study.store.get(narration.output.timeline_key))
    for segment in timeline.segments:
        words = list(words_in_file(segment))
        assert [word.text for word in words] == segment.written.split()
        assert segment.approximate
        for word, begins in zip(words, re.finditer(r"\S+", segment.written), strict=True):
            assert segment.start_sample <= word.start_sample < word.end_sample <= segment.end_sample
            hummed_s = begins.start() * 0.05
            assert (word.start_sample - segment.start_sample) / timeline.sample_rate_hz == pytest.approx(
                hummed_s, abs=0.3
            )
    shown = re.findall(r"([\d:.]+) --> ([\d:.]+)\n(.+)", vtt(timeline, CaptionsBy.WORD))
    assert len(shown) == len(timeline.segments)
    assert "<v mary>Who <00:" in shown[2][2]


async def test_steps_come_one_by_one_and_chapters_may_come_at_once(study: Study) -> None:
    narration_id = await study.handed_in()
    planned = await work_on(study.settings)
    assert planned and (planned.narration.state, planned.messages) == (NarrationState.RENDERING, 2)
    first, second, third = await asyncio.gather(*(work_on(study.settings) for _ in range(3)))
    assert {first and first.messages, second and second.messages, third and third.messages} >= {1}
    assert (await study.over(narration_id)).state is NarrationState.COMPLETED
    assert len(study.said) == 5


async def test_the_same_text_handed_in_again_is_not_spoken_again(study: Study) -> None:
    first = await study.over(await study.handed_in())
    second = await study.over(await study.handed_in())
    assert len(study.said) == 5
    assert first.output and second.output
    assert second.output.duration_s == first.output.duration_s
    assert (second.busy_s, second.real_time_factor) == (0, None)


async def test_a_sentence_read_again_is_the_only_one_spoken_and_one_file_is_left(study: Study) -> None:
    narration_id = await study.handed_in()
    await study.over(narration_id)
    await study.catalog.narrations.regenerate(narration_id, {2: 1})
    narration = await study.over(narration_id)
    assert narration.state is NarrationState.COMPLETED
    assert study.said[5:] == ["It was dark. Nobody spoke."]
    assert study.worker.uttered[5].seed != study.worker.uttered[1].seed
    assert len([key for key in study.store.keys(narration_prefix(narration_id)) if "/audio-" in key]) == 1


@pytest.mark.parametrize("damage", [None, b"no FLAC"], ids=["gone", "damaged"])
async def test_a_segment_that_is_gone_before_the_mastering_is_spoken_again(study: Study, damage: bytes | None) -> None:
    narration_id = await study.handed_in()
    await study.steps(3)
    key = next(key for key in study.store.keys("voices/rms/segments/") if key.endswith(".flac"))
    if damage is None:
        study.store.delete(key)
    else:
        study.store.put(key, damage)
    narration = await study.over(narration_id)
    assert narration.state is NarrationState.COMPLETED
    assert study.said[5:] == ["Who is there?"]


async def test_a_voice_deleted_meanwhile_fails_its_chapter_with_the_place_and_the_rest_is_kept(study: Study) -> None:
    mary = await study.catalog.voices.create("mary", model="standin")
    adapter = AdapterVersion(voice_id=mary.id, version=1, lora_id=1, uri="s3://b/v/", sha256={}, rank=16)
    voice = Voice(id=mary.id, name="mary", model="standin", adapter=adapter)
    narration_id = await study.handed_in(cast={"mary": "mary"}, voices={"slt": SLT, "mary": voice})
    await study.steps(1)
    await study.catalog.voices.delete(mary.id)
    narration = await study.over(narration_id)
    assert narration.state is NarrationState.FAILED
    assert narration.error
    assert narration.error.code == "unknown_voice"
    assert narration.error.message.startswith("chapter 1, segment 3: the voice 'mary' was deleted; resume")
    assert [chapter.finished for chapter in narration.chapters] == [False, True]
    spoken = len(study.said)
    await study.catalog.narrations.resume(narration_id, cast={"mary": "rms"}, voices={"slt": SLT, "rms": RMS})
    assert (await study.over(narration_id)).state is NarrationState.COMPLETED
    assert study.said[spoken:] == ["Who is there?"]


async def test_a_chapter_longer_than_a_turn_is_rendered_in_turns(study: Study) -> None:
    hasty = study.settings.narration.model_copy(update={"turn_s": 0.001})
    study = replace(study, settings=study.settings.model_copy(update={"narration": hasty}))
    narration_id = await study.handed_in()
    await study.steps(2)
    assert study.said == ["One."]
    ended = await work_on(study.settings)
    assert ended and ended.messages == 1
    assert study.said == ["One.", "It was dark. Nobody spoke."]
    assert [chapter.segments_done for chapter in ended.narration.chapters] == [1, 0]
    narration = await study.over(narration_id)
    assert narration.state is NarrationState.COMPLETED
    assert len(study.said) == 5
    lists = [key.rpartition("/")[2] for key in study.store.keys(f"{narration_prefix(narration_id)}takes/")]
    assert all("-" in name for name in lists), "the list of an unfinished chapter goes with its end"


async def test_a_text_that_cannot_be_planned_fails_with_its_reason(study: Study) -> None:
    narration = await study.over(await study.handed_in("***"))
    assert narration.state is NarrationState.FAILED
    assert narration.error and narration.error.code == "manuscript_unfit"


class BrokenStore(ObjectStore):
    """A store with a fault of ours, whatever is read from it."""

    def get(self, key: str) -> bytes:
        raise LookupError(TEXT)


async def broken_attempt(study: Study, narration_id: str) -> Ended | None:
    """An attempt at the narration's next step that meets what nobody foresaw."""
    step = await study.catalog.steps.claim(narration_id)
    assert step
    store = BrokenStore(study.settings.store)
    try:
        return await StepRun(
            StepContext(
                study.settings,
                study.catalog.steps,
                study.catalog.narrations,
                study.catalog.voices.get,
                store,
                step,
                study.directory,
            )
        ).to_the_end()
    finally:
        store.close()


async def test_a_step_that_meets_what_nobody_foresaw_is_given_back_and_done_again(study: Study) -> None:
    narration_id = await study.handed_in()
    await study.steps(1)
    assert await broken_attempt(study, narration_id) is None
    narration = await study.over(narration_id)
    assert (narration.state, narration.error) == (NarrationState.COMPLETED, None)


async def test_a_step_that_meets_it_every_time_fails_and_tells_what_it_was(study: Study) -> None:
    narration_id = await study.handed_in()
    await study.steps(1)
    for _ in range(study.settings.narration.max_setbacks):
        assert await broken_attempt(study, narration_id) is None
    assert await broken_attempt(study, narration_id)
    narration = await study.over(narration_id)
    assert narration.state is NarrationState.FAILED
    assert [chapter.finished for chapter in narration.chapters] == [False, True]
    assert narration.error
    assert (narration.error.code, narration.error.retryable) == ("stage_failed", True)
    assert narration.error.message.startswith("the narration broke with LookupError at test_narrate.py:")
    assert "It was dark" not in narration.error.message


async def test_what_was_found_about_the_text_is_told_once(study: Study) -> None:
    narration = await study.over(await study.handed_in(TEXT + "\n# Three\n\n* * *\n\n![](a.png)\n"))
    assert [finding.code for finding in narration.findings] == ["picture", "empty_chapter"]


async def test_a_cancelled_narration_ends_at_its_step_and_goes_on_there(study: Study) -> None:
    narration_id = await study.handed_in()
    await study.steps(1)
    study.worker.allow(characters=10)
    working = asyncio.create_task(work_on(study.settings))
    while not study.said:
        await asyncio.sleep(0.01)
    await study.catalog.narrations.request_cancel(narration_id)
    ended = await working
    assert ended and (ended.narration.state, ended.messages) == (NarrationState.CANCELLED, 0)
    study.worker.allow(characters=None)
    await study.catalog.narrations.resume(narration_id)
    assert (await study.over(narration_id)).state is NarrationState.COMPLETED


async def test_a_cover_that_is_gone_or_no_cover_costs_the_cover_and_not_the_book(study: Study) -> None:
    narration_id = new_narration_id()
    key = f"{narration_prefix(narration_id)}source.md"
    study.store.put(key, TEXT.encode())
    source = NarrationSource(
        kind=SourceKind.MARKDOWN, file_name="a.md", key=key, size_bytes=9, cover_key=f"{key}.cover.png"
    )
    narration = await study.over(await study.handed_in(narration_id=narration_id, source=source))
    assert (narration.state, narration.error, narration.findings) == (NarrationState.COMPLETED, None, ())
    study.store.put(f"{key}.cover.png", b"no picture")
    for _ in range(2):
        await study.catalog.narrations.regenerate(narration_id, {1: 1})
        narration = await study.over(narration_id)
        assert narration.state is NarrationState.COMPLETED
        assert [finding.code for finding in narration.findings] == ["cover_left_out"]


async def test_files_of_a_narration_without_a_row_go_when_they_are_old(study: Study) -> None:
    kept, gone = await study.handed_in(), new_narration_id()
    study.store.put(f"{narration_prefix(gone)}source.md", b"text")
    existing = await study.catalog.narrations.existing()
    assert sweep_store(study.settings, existing, utc_now()) == 0
    assert sweep_store(study.settings, existing, utc_now() + timedelta(days=2)) == 1
    assert list(study.store.keys("narrations/")) == list(study.store.keys(narration_prefix(kept)))


async def test_old_segments_go_unless_a_narration_still_has_them(study: Study) -> None:
    narration_id = await study.handed_in()
    await study.over(narration_id)
    later = utc_now() + timedelta(days=100)
    segments = [*study.store.keys("voices/")]
    assert len(segments) == 10
    assert sweep_store(study.settings, {narration_id}, later) == 0
    await study.catalog.narrations.delete(narration_id)
    assert sweep_store(study.settings, set(), utc_now()) == 0
    sweep_store(study.settings, set(), later)
    assert [*study.store.keys("voices/")] == [*study.store.keys("narrations/")] == []
