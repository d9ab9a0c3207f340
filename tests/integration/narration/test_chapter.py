"""A chapter's segments with a real store: what is there is not spoken again, what is faulty is, and all is kept."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

from app.errors import EngineFailed, NotFound, UnknownVoice
from app.hearing.aligner import Aligner
from app.narration.chapter import Chapter
from app.narration.models import (
    ChapterProgress,
    Narration,
    NarrationOptions,
    NarrationSource,
    NarrationState,
    ScriptChapter,
    ScriptSegment,
    SourceKind,
    Take,
)
from app.narration.segment_store import SegmentStore
from app.platform.database import utc_now
from app.platform.object_store import ObjectStore
from app.realtime.background import Spoken
from app.speech.audio import Samples
from app.speech.choices import NarrationFormat
from app.speech.voices import AdapterVersion, Voice

pytestmark = pytest.mark.anyio

RATE_HZ = 24_000
WREN = Voice(id="wren", name="wren", model="standin")
MARY = Voice(
    id="marymarymary",
    name="mary",
    model="standin",
    adapter=AdapterVersion(voice_id="marymarymary", version=1, lora_id=1, uri="s3://b/a/", sha256={}, rank=16),
)
SEGMENTS = (
    ScriptSegment(number=1, written="One fine day it rained.", spoken="One fine day it rained.", gap_s=0.5),
    ScriptSegment(number=2, character="mary", written="It did not!", spoken="It did not!", gap_s=0.5),
    ScriptSegment(number=3, written="It was 5 o'clock.", spoken="It was five o'clock."),
)


def speech(text: str, seed: int | None) -> Samples:
    """A tone of about the length that the text would take to read; each seed has its own pitch."""
    t = np.arange(round(0.065 * len(text) * RATE_HZ)) / RATE_HZ
    return (0.3 * np.sin(2 * np.pi * (200 + (seed or 0) % 97) * t)).astype(np.float32)


class ScriptedNarrator:
    """Speaks as it is told to: `faults` says what is wrong with the nth try of a text, `fails` what it raises."""

    def __init__(self, faults: Callable[[str, int], bool] = lambda text, n: False) -> None:
        self.spoken: list[tuple[str, str, int | None]] = []
        self.fails: dict[str, Exception] = {}
        self._faults = faults

    async def utter(self, voice: Voice, text: str, *, seed: int | None = None) -> Spoken:
        tries = sum(spoken == text for _, spoken, _ in self.spoken)
        self.spoken.append((voice.name, text, seed))
        if text in self.fails:
            raise self.fails[text]
        complete = not self._faults(text, tries)
        return Spoken(text, speech(text, seed), RATE_HZ, complete=complete, worker="w1", busy_s=0.5)


def narration(**fields: object) -> Narration:
    return Narration(
        id="nar-1",
        state=NarrationState.RENDERING,
        voice="wren",
        cast={"mary": "mary"},
        model="standin",
        voices={"wren": WREN, "mary": MARY},
        format=NarrationFormat.WAV,
        options=NarrationOptions(),
        source=NarrationSource(kind=SourceKind.TEXT, file_name="a.txt", key="k", size_bytes=1),
        revision=1,
        created_at=utc_now(),
    ).model_copy(update=fields)


class Room:
    """Renders the chapter, again and again, into one store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.deleted: set[str] = set()
        self.told: list[ChapterProgress] = []

    async def takes(self, chapter: Chapter) -> dict[int, Take]:
        assert await chapter.render()
        return chapter.takes

    def chapter(self, narrator: ScriptedNarrator, of: Narration, *segments: ScriptSegment) -> Chapter:
        async def living(voice: Voice) -> None:
            if voice.id in self.deleted:
                raise NotFound("it is deleted")

        async def report(progress: ChapterProgress) -> None:
            self.told.append(progress)

        return Chapter(
            ScriptChapter(number=4, title="Rain", segments=segments or SEGMENTS),
            of.options,
            before=ChapterProgress(number=4, title="Rain", segments=3),
            segment_store=SegmentStore(self.store, of),
            narrator=narrator,
            aligner=Aligner(),
            language="de",
            living=living,
            report=report,
        )


@pytest.fixture
def room(object_store: ObjectStore) -> Room:
    return Room(object_store)


async def test_every_segment_is_spoken_by_its_character_and_kept_bit_by_bit(room: Room) -> None:
    narrator = ScriptedNarrator()
    chapter = room.chapter(narrator, narration())
    takes = await room.takes(chapter)
    assert [(voice, text) for voice, text, _ in narrator.spoken] == [
        ("wren", "One fine day it rained."),
        ("mary", "It did not!"),
        ("wren", "It was five o'clock."),
    ]
    assert list(takes) == [1, 2, 3]
    assert takes[2].key.startswith("voices/marymarymary/segments/")
    assert room.store.get(takes[2].key)[:4] == b"fLaC"
    assert [progress.segments_done for progress in room.told] == [1, 2, 3]
    assert chapter.progress.busy_s == 1.5
    assert chapter.progress.audio_s == chapter.progress.rendered_s == sum(take.audio_s for take in takes.values())


async def test_what_lies_in_the_store_is_not_spoken_again_and_costs_nothing(room: Room) -> None:
    first = await room.takes(room.chapter(ScriptedNarrator(), narration()))
    narrator = ScriptedNarrator()
    chapter = room.chapter(narrator, narration())
    assert await room.takes(chapter) == first
    assert narrator.spoken == []
    assert (chapter.progress.segments_done, chapter.progress.busy_s, chapter.progress.rendered_s) == (3, 0, 0)


async def test_the_times_of_its_words_are_kept_with_a_take(room: Room) -> None:
    takes = await room.takes(room.chapter(ScriptedNarrator(), narration()))
    words = takes[3].words
    assert words and words.approximate
    starts_s = [start_s for start_s, _ in words.times_s]
    assert (len(starts_s), starts_s) == (4, sorted(starts_s))
    assert 0 < words.times_s[-1][1] <= takes[3].audio_s
    assert (await room.takes(room.chapter(ScriptedNarrator(), narration())))[3].words == words


async def test_an_edited_sentence_is_the_only_one_that_is_spoken_again(room: Room) -> None:
    await room.chapter(ScriptedNarrator(), narration()).render()
    edited = SEGMENTS[0].model_copy(update={"written": "One fine day it snowed.", "spoken": "One fine day it snowed."})
    narrator = ScriptedNarrator()
    await room.chapter(narrator, narration(), edited, *SEGMENTS[1:]).render()
    assert [text for _, text, _ in narrator.spoken] == ["One fine day it snowed."]


async def test_another_take_of_a_segment_has_another_seed_and_leaves_the_rest(room: Room) -> None:
    narrator = ScriptedNarrator()
    await room.chapter(narrator, narration()).render()
    await room.chapter(narrator, narration(takes={2: 1})).render()
    *_, (_, first, first_seed), _, (_, again, again_seed) = narrator.spoken
    assert first == again == "It did not!"
    assert first_seed != again_seed
    assert len(narrator.spoken) == 4


async def test_a_voice_published_again_speaks_its_segments_again(room: Room) -> None:
    await room.chapter(ScriptedNarrator(), narration()).render()
    assert MARY.adapter
    newer = MARY.model_copy(update={"adapter": MARY.adapter.model_copy(update={"version": 2, "lora_id": 2})})
    narrator = ScriptedNarrator()
    await room.chapter(narrator, narration(voices={"wren": WREN, "mary": newer})).render()
    assert [voice for voice, _, _ in narrator.spoken] == ["mary"]


async def test_a_faulty_segment_is_spoken_again_with_other_seeds_until_it_is_right(room: Room) -> None:
    narrator = ScriptedNarrator(lambda text, n: text == "It did not!" and n < 2)
    takes = await room.takes(room.chapter(narrator, narration()))
    seeds = [seed for _, text, seed in narrator.spoken if text == "It did not!"]
    assert len(set(seeds)) == len(seeds) == 3
    assert (takes[2].tries, takes[2].flags, takes[2].busy_s) == (3, (), 1.5)


async def test_a_segment_that_never_comes_right_is_kept_at_its_best_and_flagged(room: Room) -> None:
    narrator = ScriptedNarrator(lambda text, n: text == "It did not!")
    chapter = room.chapter(narrator, narration())
    takes = await room.takes(chapter)
    assert (takes[2].tries, takes[2].flags) == (4, ("unfinished",))
    assert chapter.progress.flagged == 1


async def test_retakes_can_be_turned_off(room: Room) -> None:
    narrator = ScriptedNarrator(lambda text, n: True)
    takes = await room.takes(room.chapter(narrator, narration(options=NarrationOptions(retakes=0))))
    assert [take.tries for take in takes.values()] == [1, 1, 1]


async def test_a_voice_deleted_on_the_way_is_named_with_its_place_and_what_was_rendered_stays(room: Room) -> None:
    room.deleted.add(MARY.id)
    chapter = room.chapter(ScriptedNarrator(), narration())
    with pytest.raises(UnknownVoice, match=r"chapter 4, segment 2: the voice 'mary' was deleted; resume"):
        await chapter.render()
    assert chapter.progress.segments_done == 1
    narrator = ScriptedNarrator()
    await room.chapter(narrator, narration(cast={"mary": "wren"})).render()
    assert [text for _, text, _ in narrator.spoken] == ["It did not!", "It was five o'clock."]


async def test_an_error_keeps_its_kind_and_tells_the_place(room: Room) -> None:
    narrator = ScriptedNarrator()
    narrator.fails["It was five o'clock."] = EngineFailed("the engine is gone")
    with pytest.raises(EngineFailed, match="chapter 4, segment 3: the engine is gone"):
        await room.chapter(narrator, narration()).render()


async def test_a_take_whose_facts_are_damaged_is_rendered_again(room: Room) -> None:
    takes = await room.takes(room.chapter(ScriptedNarrator(), narration()))
    room.store.put(f"{takes[1].key.rpartition('-')[0]}.json", b"{")
    narrator = ScriptedNarrator()
    await room.chapter(narrator, narration()).render()
    assert [text for _, text, _ in narrator.spoken] == ["One fine day it rained."]


async def test_a_chapters_list_of_takes_comes_back_as_it_was(room: Room) -> None:
    segment_store = SegmentStore(room.store, narration())
    takes = await room.takes(room.chapter(ScriptedNarrator(), narration()))
    await segment_store.list("narrations/nar-1/takes/4-1.json", takes)
    assert await segment_store.listed("narrations/nar-1/takes/4-1.json") == takes


async def test_a_take_that_is_forgotten_is_rendered_again(room: Room) -> None:
    takes = await room.takes(room.chapter(ScriptedNarrator(), narration()))
    await SegmentStore(room.store, narration()).forget(takes[3].key)
    narrator = ScriptedNarrator()
    await room.takes(room.chapter(narrator, narration()))
    assert [text for _, text, _ in narrator.spoken] == ["It was five o'clock."]


async def test_two_who_render_a_segment_at_once_leave_one_take_that_is_whole(room: Room) -> None:
    segment_store, segment = SegmentStore(room.store, narration()), SEGMENTS[0]
    [take] = (await room.takes(room.chapter(ScriptedNarrator(), narration(), segment))).values()
    longer = np.concatenate([speech("longer", 1), speech("than that", 2)])
    other = await segment_store.keep(segment, longer, take.model_copy(update={"samples": len(longer)}))
    assert other.key != take.key
    found = await segment_store.find(segment)
    assert found and found == other
    samples, _ = soundfile.read(io.BytesIO(room.store.get(found.key)))
    assert len(samples) == found.samples


async def test_a_turn_that_ends_leaves_the_rest_to_the_next_which_looks_nothing_up(room: Room) -> None:
    first = room.chapter(ScriptedNarrator(), narration())
    assert not await first.render(interrupted=lambda: len(first.takes) == 2)
    assert list(first.takes) == [1, 2]
    for take in first.takes.values():  # the list alone is asked for them
        await SegmentStore(room.store, narration()).forget(take.key)
    narrator = ScriptedNarrator()
    assert await room.chapter(narrator, narration()).render(known=first.takes)
    assert [text for _, text, _ in narrator.spoken] == ["It was five o'clock."]


async def test_what_was_listed_of_other_words_is_not_taken_for_these(room: Room) -> None:
    first = room.chapter(ScriptedNarrator(), narration())
    await first.render()
    narrator = ScriptedNarrator()
    await room.chapter(narrator, narration(takes={1: 1})).render(known=first.takes)
    assert [text for _, text, _ in narrator.spoken] == ["One fine day it rained."]
