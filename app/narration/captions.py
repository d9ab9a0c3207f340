"""Captions of a narration: WebVTT and SubRip, cues of at most two lines, bound to where segments lie in the file.

A cue's words are those that were written, not those that were spoken, in lines of at most LINE_CHARS where words allow.
Where each segment begins and ends is known; the cues between are placed in proportion to their letters.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from app.narration.models import NARRATOR, Timeline, TimelineSegment

LINE_CHARS = 42
"""The usual width of a line on a screen (Netflix's and the BBC's guides say 42 and 37)."""

CUE_LINES = 2

_WORD_JOINER = "\u2060"  # of no width: players see no markup after it, readers see nothing


@dataclass(frozen=True)
class _Cue:
    """What is shown from `start_s` to `end_s`."""

    character: str
    lines: list[str]
    start_s: float
    end_s: float

    def bounds(self, point: str) -> str:
        return f"{_clock(self.start_s, point)} --> {_clock(self.end_s, point)}"


def vtt(timeline: Timeline) -> str:
    """WebVTT (W3C): markup characters escaped, every speaker but the narrator named by a voice span."""
    cues = ["WEBVTT\n"]
    for number, cue in enumerate(_cues(timeline), start=1):
        text = "\n".join(map(_vtt_escaped, cue.lines))
        if cue.character != NARRATOR:
            text = f"<v {_vtt_escaped(cue.character)}>{text}</v>"
        cues.append(f"{number}\n{cue.bounds('.')}\n{text}\n")
    return "\n".join(cues)


def srt(timeline: Timeline) -> str:
    """SubRip, which has no escapes: a word joiner keeps what looks like markup or like an arrow from being taken so."""
    cues = []
    for number, cue in enumerate(_cues(timeline), start=1):
        text = "\n".join(map(_srt_escaped, cue.lines))
        cues.append(f"{number}\n{cue.bounds(',')}\n{text}\n")
    return "\n".join(cues)


def _cues(timeline: Timeline) -> Iterator[_Cue]:
    for segment in timeline.segments:
        if segment.end_sample > segment.start_sample:
            yield from _cues_of(segment, timeline.sample_rate_hz)


def _cues_of(segment: TimelineSegment, sample_rate_hz: int) -> Iterator[_Cue]:
    """None where nothing was written. Lines are wrapped before they are escaped: each is as long as it looks."""
    text = " ".join(segment.written.split())
    lines = textwrap.wrap(text, LINE_CHARS, break_long_words=False, break_on_hyphens=False)
    letters = sum(map(len, lines))
    length = segment.end_sample - segment.start_sample
    shown, start = 0, segment.start_sample
    for first in range(0, len(lines), CUE_LINES):
        of_it = lines[first : first + CUE_LINES]
        shown += sum(map(len, of_it))
        end = segment.start_sample + length * shown // letters
        yield _Cue(segment.character, of_it, start / sample_rate_hz, end / sample_rate_hz)
        start = end


def _clock(time_s: float, point: str) -> str:
    seconds, milliseconds = divmod(round(1000 * time_s), 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def _vtt_escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _srt_escaped(text: str) -> str:
    return re.sub(r"[<{]|--(?=>)", lambda markup: markup[0] + _WORD_JOINER, text)
