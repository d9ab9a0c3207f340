"""Where the words of a narration lie in its file, against recordings of which it is known where each word lies."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from app.hearing.aligner import open_aligner
from app.narration.mastering import master
from app.narration.models import (
    NarrationOptions,
    Script,
    ScriptChapter,
    ScriptSegment,
    Take,
    Timeline,
    TimelineSegment,
    WordTimes,
)
from app.narration.word_times import hear, with_words, words_in_file
from app.speech.audio import Samples
from app.speech.choices import NarrationFormat
from tests.support.deadlines import HANG_S
from tests.support.speech import CONSENT_PARTS

pytestmark = pytest.mark.anyio

RATE_HZ = 16_000
FILE_RATE_HZ = 24_000
SILENCE = np.zeros(RATE_HZ // 2, np.float32)


def digit(number: int) -> Samples:
    return np.asarray(soundfile.read(CONSENT_PARTS / f"{number}.flac", dtype="float32")[0], np.float32)


def take(samples: Samples, words: WordTimes | None, *, key: str, sample_rate_hz: int) -> Take:
    return Take(
        key=key,
        samples=len(samples),
        sample_rate_hz=sample_rate_hz,
        speech_s=1.0,
        voice="ada",
        worker="w",
        busy_s=1.0,
        words=words,
    )


def flac(samples: Samples, sample_rate_hz: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate_hz, format="FLAC")
    return file.getvalue()


async def test_words_are_found_in_the_file_where_they_are_heard_in_it(tmp_path: Path) -> None:
    """A take is trimmed, resampled and joined behind another; what was written is otherwise than what was spoken."""
    three, nine = digit(3), digit(9)
    counted = np.concatenate([SILENCE, three, SILENCE, nine, SILENCE])
    async with open_aligner(timeout_s=HANG_S) as aligner:
        heard = await hear(aligner, "three, nine.", counted, sample_rate_hz=RATE_HZ, language="en")
    assert not heard.approximate
    hum = (np.sin(np.arange(FILE_RATE_HZ) / 20) / 4).astype(np.float32)
    takes = {
        1: take(hum, None, key="hum", sample_rate_hz=FILE_RATE_HZ),
        2: take(counted, heard, key="counted", sample_rate_hz=RATE_HZ),
    }
    stored = {"hum": flac(hum, FILE_RATE_HZ), "counted": flac(counted, RATE_HZ)}
    segments = (
        ScriptSegment(number=1, written="Hum.", spoken="hum.", gap_s=0.7),
        ScriptSegment(number=2, written="3, 9.", spoken="three, nine."),
    )
    mastered = master(
        Script(title="", author="", language="en", chapters=(ScriptChapter(number=1, title="", segments=segments),)),
        takes,
        NarrationOptions(),
        NarrationFormat.WAV,
        fetch=lambda wanted: stored[wanted.key],
        directory=tmp_path,
    )
    _, lies = mastered.timeline.segments
    assert [word.text for word in words_in_file(lies)] == ["3,", "9."]
    assert not lies.approximate
    audio, rate_hz = soundfile.read(mastered.path, dtype="float32")
    assert rate_hz == FILE_RATE_HZ
    for start, end in lies.words:
        assert np.abs(audio[start:end]).max() > 0.05
        audio[start - FILE_RATE_HZ // 10 : end + FILE_RATE_HZ // 10] = 0
    assert np.abs(audio[lies.start_sample :]).max() < 0.01, "there is no speech but in the words"


async def test_a_take_from_before_words_were_heard_has_them_laid_out_by_their_lengths() -> None:
    spoken = np.concatenate([SILENCE, digit(3), SILENCE])
    lies = segment(written="three nine", spoken="three nine", start=1000, end=1000 + len(spoken))
    timed = with_words(lies, None, spoken, sample_rate_hz=RATE_HZ, cut=0)
    assert timed.approximate
    (first, middle), (again, last) = timed.words
    assert 1000 + len(SILENCE) - 400 <= first < middle <= again < last <= timed.end_sample - len(SILENCE) + 400


async def test_words_never_leave_their_segment() -> None:
    """What the trim cut off may have been taken for a part of a word."""
    lies = segment(written="three", spoken="three", start=5000, end=9000)
    heard = WordTimes(times_s=((0.0, 1.0),), approximate=False)
    timed = with_words(lies, heard, np.zeros(RATE_HZ, np.float32), sample_rate_hz=RATE_HZ, cut=2000)
    assert timed.words == ((5000, 9000),)


async def test_a_file_from_before_words_were_timed_has_them_by_their_letters() -> None:
    lies = segment(written="a bcd", spoken="a bcd", start=100, end=500)
    assert [(word.text, word.start_sample, word.end_sample) for word in words_in_file(lies)] == [
        ("a", 100, 200), ("bcd", 200, 500),
    ]  # fmt: skip


def segment(*, written: str, spoken: str, start: int, end: int) -> TimelineSegment:
    return TimelineSegment(
        number=1,
        chapter=1,
        character="narrator",
        voice="ada",
        written=written,
        spoken=spoken,
        start_sample=start,
        end_sample=end,
    )


def test_what_a_later_version_adds_to_a_take_or_a_timeline_is_passed_over() -> None:
    later = {"sample_rate_hz": 24_000, "samples": 0, "chapters": [], "segments": [], "breaths": [1]}
    assert Timeline.model_validate(later) == Timeline(sample_rate_hz=24_000, samples=0, chapters=(), segments=())
