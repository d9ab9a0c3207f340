"""Captions of a narration: WebVTT and SubRip, one cue for each segment, bound to where it lies in the file.

A cue's words are those that were written, not those that were spoken, in lines of at most LINE_CHARS where words allow.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator

from app.core.narration import NARRATOR, Timeline, TimelineSegment

LINE_CHARS = 42
"""The usual width of a line on a screen (Netflix's and the BBC's guides say 42 and 37)."""

_WORD_JOINER = "\u2060"  # of no width: players see no markup after it, readers see nothing


def vtt(timeline: Timeline) -> str:
    """WebVTT (W3C): markup characters escaped, whoever is not the narrator named by a voice span."""
    cues = ["WEBVTT\n"]
    for number, segment in _cues(timeline):
        text = _lines(segment.written, _vtt_escaped)
        if segment.character != NARRATOR:
            text = f"<v {_vtt_escaped(segment.character)}>{text}</v>"
        cues.append(f"{number}\n{_bounds(segment, timeline.sample_rate_hz, '.')}\n{text}\n")
    return "\n".join(cues)


def srt(timeline: Timeline) -> str:
    """SubRip, which has no escapes: a word joiner keeps what looks like markup or like an arrow from being taken so."""
    cues = [
        f"{number}\n{_bounds(segment, timeline.sample_rate_hz, ',')}\n{_lines(segment.written, _srt_escaped)}\n"
        for number, segment in _cues(timeline)
    ]
    return "\n".join(cues)


def _cues(timeline: Timeline) -> Iterator[tuple[int, TimelineSegment]]:
    """Every segment that is heard and was written, counted from 1."""
    heard = (s for s in timeline.segments if s.end_sample > s.start_sample and s.written.strip())
    return enumerate(heard, start=1)


def _bounds(segment: TimelineSegment, sample_rate_hz: int, point: str) -> str:
    start, end = (
        _clock(round(sample * 1000 / sample_rate_hz), point) for sample in (segment.start_sample, segment.end_sample)
    )
    return f"{start} --> {end}"


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def _lines(text: str, escaped: Callable[[str], str]) -> str:
    """Wrapped before it is escaped: a line is as long as it looks. None is empty, which would end the cue."""
    lines = textwrap.wrap(" ".join(text.split()), LINE_CHARS, break_long_words=False, break_on_hyphens=False)
    return "\n".join(escaped(line) for line in lines)


def _vtt_escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _srt_escaped(text: str) -> str:
    return re.sub(r"[<{]|--(?=>)", lambda markup: markup[0] + _WORD_JOINER, text)
