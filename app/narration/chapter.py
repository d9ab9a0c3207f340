"""One chapter of a narration: its segments in order, each taken from the store or spoken by the fleet and checked.

A segment that fails its checks is spoken again with another seed, a few times, and the best is kept with what is wrong
with it, and with the times of its words: here its audio is at hand, and it is heard once, however often the file is
made of it. It knows neither rows nor queues: the caller gets the progress after every segment.
"""

from __future__ import annotations

import logging
import statistics
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from app.errors import CarillonError, NotFound, UnknownVoice
from app.hearing.aligner import Aligner
from app.narration.models import ChapterProgress, NarrationOptions, ScriptChapter, ScriptSegment, Take, WordTimes
from app.narration.segment_store import SegmentStore
from app.narration.word_times import hear
from app.realtime.background import Spoken
from app.speech.audio import Samples
from app.speech.utterance_checks import better, checked, speech_s
from app.speech.voices import Voice

PACE_TAKES = 5
"""So many takes show how fast a voice speaks; before that, expectation is wide."""

log = logging.getLogger(__name__)


class Narrator(Protocol):
    """Who speaks: the fleet (`app.realtime.background.Narrator`), or a test's."""

    async def utter(self, voice: Voice, text: str, *, seed: int | None = None) -> Spoken: ...


class Chapter:
    """Renders one chapter. `before` is how far it was: what it has cost stands.

    `aligner` finds the words of each take in `language`; `living` raises NotFound for a voice that was deleted;
    `report` gets the progress after every segment.
    """

    def __init__(
        self,
        chapter: ScriptChapter,
        options: NarrationOptions,
        *,
        before: ChapterProgress,
        segment_store: SegmentStore,
        narrator: Narrator,
        aligner: Aligner,
        language: str,
        living: Callable[[Voice], Awaitable[None]],
        report: Callable[[ChapterProgress], Awaitable[None]],
    ) -> None:
        self.progress = before.model_copy(update={"segments_done": 0, "audio_s": 0.0, "flagged": 0, "error": None})
        self.takes: dict[int, Take] = {}
        self._chapter = chapter
        self._options = options
        self._segment_store = segment_store
        self._narrator = narrator
        self._aligner = aligner
        self._language = language
        self._living = living
        self._report = report
        self._paces: dict[str, list[float]] = defaultdict(list)

    async def render(
        self, *, known: Mapping[int, Take] | None = None, interrupted: Callable[[], bool] = lambda: False
    ) -> bool:
        """Fill `takes`, by segment. `known` were listed at an earlier turn.

        Returns False when it was `interrupted`, which is asked after every segment that had to be spoken.

        Raises the CarillonError that stopped it, with the place in its message.
        """
        *_, last = self._chapter.segments
        for segment in self._chapter.segments:
            try:
                take, rendered = await self._take(segment, (known or {}).get(segment.number))
            except CarillonError as error:
                raise self._placed(error, segment) from error
            self.takes[segment.number] = take
            self._count(segment, take, rendered)
            await self._report(self.progress)
            if rendered and segment is not last and interrupted():
                return False
        return True

    async def _take(self, segment: ScriptSegment, known: Take | None) -> tuple[Take, bool]:
        """The segment's take, and whether it had to be rendered."""
        voice = self._segment_store.voice(segment)
        try:
            await self._living(voice)
        except NotFound:
            raise UnknownVoice(
                f"the voice {voice.name!r} was deleted; resume the narration with another (`voice` or `cast`)",
                param="voice",
            ) from None
        take = known if known and self._segment_store.fits(known, segment) else await self._segment_store.find(segment)
        if take:
            self._learn(voice, segment, take)
            return take, False
        take, samples = await self._spoken(voice, segment)
        self._learn(voice, segment, take)
        return await self._segment_store.keep(segment, samples, take), True

    async def _spoken(self, voice: Voice, segment: ScriptSegment) -> tuple[Take, Samples]:
        """The best of at most 1 + `retakes` tries: the first that passes every check, else the least wrong."""
        tries = 1
        spoken, flags = await self._tried(voice, segment, tries)
        busy_s = spoken.busy_s
        while flags and tries <= self._options.retakes:
            tries += 1
            again, wrong = await self._tried(voice, segment, tries)
            busy_s += again.busy_s
            if better(wrong, flags):
                spoken, flags = again, wrong
        if flags:
            log.warning("segment flagged", extra={"segment": segment.number, "flags": flags, "tries": tries})
        take = Take(
            key="",
            samples=len(spoken.samples),
            sample_rate_hz=spoken.sample_rate_hz,
            speech_s=speech_s(spoken.samples, spoken.sample_rate_hz),
            voice=voice.name,
            worker=spoken.worker,
            tries=tries,
            busy_s=busy_s,
            flags=flags,
            words=await self._heard(segment, spoken),
        )
        return take, spoken.samples

    async def _tried(self, voice: Voice, segment: ScriptSegment, tries: int) -> tuple[Spoken, tuple[str, ...]]:
        """The segment, spoken once, and the checks that it failed."""
        spoken = await self._narrator.utter(voice, segment.spoken, seed=self._seed(segment, tries))
        flags = checked(
            spoken.samples,
            spoken.sample_rate_hz,
            segment.spoken,
            complete=spoken.complete,
            repeated_s=spoken.repeated_s,
            seconds_per_char=self._pace(voice),
        )
        return spoken, flags

    async def _heard(self, segment: ScriptSegment, spoken: Spoken) -> WordTimes:
        rate_hz = spoken.sample_rate_hz
        return await hear(
            self._aligner, segment.spoken, spoken.samples, sample_rate_hz=rate_hz, language=self._language
        )

    def _seed(self, segment: ScriptSegment, tries: int) -> int:
        """Of the words and the voice, so that a narration submitted again sounds as it did; each try has its own."""
        return (int(self._segment_store.digest(segment)[:7], 16) + tries) % 2**31

    def _pace(self, voice: Voice) -> float | None:
        paces = self._paces[voice.id]
        return statistics.median(paces) if len(paces) >= PACE_TAKES else None

    def _learn(self, voice: Voice, segment: ScriptSegment, take: Take) -> None:
        if not take.flags:
            self._paces[voice.id].append(take.speech_s / len(segment.spoken))

    def _count(self, segment: ScriptSegment, take: Take, rendered: bool) -> None:
        done = self.progress
        self.progress = done.model_copy(
            update={
                "segments_done": done.segments_done + 1,
                "audio_s": done.audio_s + take.audio_s,
                "rendered_s": done.rendered_s + (take.audio_s if rendered else 0.0),
                "rendered_chars": done.rendered_chars + (len(segment.spoken) if rendered else 0),
                "busy_s": done.busy_s + (take.busy_s if rendered else 0.0),
                "flagged": done.flagged + bool(take.flags),
            }
        )

    def _placed(self, error: CarillonError, segment: ScriptSegment) -> CarillonError:
        place = f"chapter {self._chapter.number}, segment {segment.number}: "
        return type(error)(place + error.message, param=error.param, retry_after_s=error.retry_after_s)
