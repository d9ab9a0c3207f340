"""Captions of a narration: WebVTT and SubRip, cues of at most two lines, bound to where words lie in the file.

A cue's words are those that were written, not those that were spoken, in lines of at most LINE_CHARS where words allow.
A segment is shown for as long as it is heard; of its cues, one gives way when the first word of the next is spoken.
By word, WebVTT keeps its lines and says within them when each word begins, as players of songs show it; SubRip has no
such marks, so that there each word is a cue.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.narration.models import NARRATOR, Timeline, TimelineSegment
from app.narration.word_times import words_in_file
from app.speech.choices import CaptionsBy

LINE_CHARS = 42
"""The usual width of a line on a screen (Netflix's and the BBC's guides say 42 and 37)."""

CUE_LINES = 2

_WORD_JOINER = "\u2060"  # of no width: players see no markup after it, readers see nothing


@dataclass(frozen=True)
class _Word:
    text: str
    start_ms: int


@dataclass(frozen=True)
class _Cue:
    """What is shown from `start_ms` to `end_ms`, in lines of words."""

    character: str
    lines: Sequence[Sequence[_Word]]
    start_ms: int
    end_ms: int

    def bounds(self, point: str) -> str:
        return f"{_clock(self.start_ms, point)} --> {_clock(self.end_ms, point)}"


def vtt(timeline: Timeline, by: CaptionsBy = CaptionsBy.LINE) -> str:
    """WebVTT (W3C): markup characters escaped, every speaker but the narrator named by a voice span."""
    cues = ["WEBVTT\n"]
    for number, cue in enumerate(_cues(timeline, CaptionsBy.LINE), start=1):
        text = _vtt_timed(cue) if by is CaptionsBy.WORD else "\n".join(map(_vtt_escaped, _texts(cue)))
        if cue.character != NARRATOR:
            text = f"<v {_vtt_escaped(cue.character)}>{text}</v>"
        cues.append(f"{number}\n{cue.bounds('.')}\n{text}\n")
    return "\n".join(cues)


def srt(timeline: Timeline, by: CaptionsBy = CaptionsBy.LINE) -> str:
    """SubRip, which has no escapes: a word joiner keeps what looks like markup or like an arrow from being taken so."""
    cues = []
    for number, cue in enumerate(_cues(timeline, by), start=1):
        text = "\n".join(map(_srt_escaped, _texts(cue)))
        cues.append(f"{number}\n{cue.bounds(',')}\n{text}\n")
    return "\n".join(cues)


def _texts(cue: _Cue) -> Iterator[str]:
    return (" ".join(word.text for word in line) for line in cue.lines)


def _vtt_timed(cue: _Cue) -> str:
    """Its lines, each word after the first with the time at which it begins: they grow, and lie within the cue."""
    told_ms, lines = cue.start_ms, []
    for line in cue.lines:
        pieces = []
        for word in line:
            piece = _vtt_escaped(word.text)
            if told_ms < word.start_ms < cue.end_ms:
                told_ms = word.start_ms
                piece = f"<{_clock(told_ms, '.')}>{piece}"
            pieces.append(piece)
        lines.append(" ".join(pieces))
    return "\n".join(lines)


def _cues(timeline: Timeline, by: CaptionsBy) -> Iterator[_Cue]:
    for segment in timeline.segments:
        if segment.end_sample > segment.start_sample:
            yield from _cues_of(segment, by, timeline.sample_rate_hz)


def _cues_of(segment: TimelineSegment, by: CaptionsBy, sample_rate_hz: int) -> Iterator[_Cue]:
    """End to end, and none where nothing was written. What is never spoken is shown for a moment at least."""
    to_ms = 1000 / sample_rate_hz
    words = [_Word(word.text, round(word.start_sample * to_ms)) for word in words_in_file(segment)]
    shown = list(_screens(words) if by is CaptionsBy.LINE else _singles(words))
    starts = [lines[0][0].start_ms for lines in shown]
    if by is CaptionsBy.LINE:
        starts[:1] = [round(segment.start_sample * to_ms)]
    ends = [*starts[1:], round(segment.end_sample * to_ms)]
    for lines, start_ms, end_ms in zip(shown, starts, ends, strict=False):
        yield _Cue(segment.character, lines, start_ms, max(end_ms, start_ms + 1))


def _screens(words: Sequence[_Word]) -> Iterator[list[list[_Word]]]:
    """The words in lines, CUE_LINES at a time; wrapped before they are escaped, lines are as long as they look."""
    text, rest = " ".join(word.text for word in words), iter(words)
    wrapped = textwrap.wrap(text, LINE_CHARS, break_long_words=False, break_on_hyphens=False)
    lines = [[next(rest) for _ in line.split()] for line in wrapped]
    for first in range(0, len(lines), CUE_LINES):
        yield lines[first : first + CUE_LINES]


def _singles(words: Sequence[_Word]) -> Iterator[list[list[_Word]]]:
    """One word at a time; one that takes no time, as a dash, is shown with the word before it."""
    shown: list[_Word] = []
    for word in words:
        if shown and word.start_ms > shown[0].start_ms:
            yield [shown]
            shown = []
        shown.append(word)
    if shown:
        yield [shown]


def _clock(time_ms: int, point: str) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def _vtt_escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _srt_escaped(text: str) -> str:
    return re.sub(r"[<{]|--(?=>)", lambda markup: markup[0] + _WORD_JOINER, text)
