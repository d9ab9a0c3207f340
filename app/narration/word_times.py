"""When each word of a narration is spoken: heard in its take, carried to what was written, placed in the file.

A take is heard once, when it is made, and its times are kept with it: a file that is made again hears nothing. They are
of what was spoken. What was written, which may be otherwise in another narration of the same words, has its times from
them when the file is made. The takes from before words were heard have theirs laid out by their lengths then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

from app.hearing.aligner import Aligner
from app.narration.models import TimelineSegment, WordTimes
from app.speech.audio import Samples
from app.speech.timing import TimedWord, carried, proportional, words_of


@dataclass(frozen=True, slots=True)
class FileWord:
    """A word as it was written, punctuation and all: `[start_sample, end_sample)` of the file."""

    text: str
    start_sample: int
    end_sample: int


async def hear(aligner: Aligner, text: str, samples: Samples, *, sample_rate_hz: int, language: str) -> WordTimes:
    """When each word of `text` is spoken in its take. Never raises."""
    timing = await aligner.align(text, samples, sample_rate_hz=sample_rate_hz, language=language)
    times_s = tuple((round(word.start_s, 3), round(word.end_s, 3)) for word in timing.words)
    return WordTimes(times_s=times_s, approximate=timing.approximate)


def with_words(
    segment: TimelineSegment, heard: WordTimes | None, samples: Samples, *, sample_rate_hz: int, cut: int
) -> TimelineSegment:
    """The segment with its words, as `heard` in its take, all `samples`: the file leaves out the first `cut`."""
    spoken = words_of(segment.spoken)
    if heard is None or len(heard.times_s) != len(spoken):
        timed, approximate = proportional(segment.spoken, samples, sample_rate_hz), True
    else:
        timed = tuple(TimedWord(word, *times) for word, times in zip(spoken, heard.times_s, strict=True))
        approximate = heard.approximate

    def placed(time_s: float) -> int:
        at = segment.start_sample - cut + round(time_s * sample_rate_hz)
        return min(max(at, segment.start_sample), segment.end_sample)

    words = tuple((placed(word.start_s), placed(word.end_s)) for word in carried(timed, segment.written))
    return segment.model_copy(update={"words": words, "approximate": approximate})


def words_in_file(segment: TimelineSegment) -> Iterator[FileWord]:
    """The words as they were written; in files from before words were timed, laid out by their letters."""
    words = words_of(segment.written)
    bounds = segment.words if len(segment.words) == len(words) else _by_letters(words, segment)
    for word, (start, end) in zip(words, bounds, strict=True):
        yield FileWord(word, start, end)


def _by_letters(words: list[str], segment: TimelineSegment) -> Iterator[tuple[int, int]]:
    letters, length = sum(map(len, words)), segment.end_sample - segment.start_sample
    ends = (segment.start_sample + length * done // letters for done in accumulate(map(len, words), initial=0))
    return pairwise(ends)
