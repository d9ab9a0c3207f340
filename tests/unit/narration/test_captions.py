"""Captions, as a player reads them."""

from __future__ import annotations

import re
from typing import Any

from app.narration.captions import LINE_CHARS, srt, vtt
from app.narration.models import Timeline, TimelineSegment
from app.speech.choices import CaptionsBy

RATE_HZ = 24_000


def timeline(*segments: dict[str, Any]) -> Timeline:
    placed = [
        TimelineSegment(**{"chapter": 1, "character": "narrator", "voice": "v", "spoken": "", "number": n, **segment})
        for n, segment in enumerate(segments, start=1)
    ]
    return Timeline(sample_rate_hz=RATE_HZ, samples=placed[-1].end_sample, chapters=(), segments=tuple(placed))


def test_a_cue_lies_where_its_segment_lies() -> None:
    spoken = timeline(
        {"written": "It was late.", "start_sample": 0, "end_sample": 36_012},
        {"written": "Nobody came.", "start_sample": 44_412, "end_sample": 24_000 * 3_725 + 12_000},
    )
    assert vtt(spoken) == (
        "WEBVTT\n\n1\n00:00:00.000 --> 00:00:01.500\nIt was late.\n\n2\n00:00:01.850 --> 01:02:05.500\nNobody came.\n"
    )
    assert srt(spoken) == (
        "1\n00:00:00,000 --> 00:00:01,500\nIt was late.\n\n2\n00:00:01,850 --> 01:02:05,500\nNobody came.\n"
    )


def test_ten_hours_and_a_hundred_have_clocks() -> None:
    late = timeline({"written": "Still here.", "start_sample": RATE_HZ * 36_000, "end_sample": RATE_HZ * 360_001})
    assert "10:00:00.000 --> 100:00:01.000" in vtt(late)


CUE = re.compile(r"\d+\n(\S+) --> (\S+)\n(.+(?:\n.+)*)\n")


def cues(text: str) -> list[tuple[str, str, list[str]]]:
    """Of each cue when it begins, when it ends, and its lines."""
    return [(start, end, lines.splitlines()) for start, end, lines in CUE.findall(text)]


def test_a_long_segment_is_shown_in_cues_of_two_lines_that_leave_nothing_out() -> None:
    written = "A long sentence, which goes on and on.\n\n  And after a blank line " + "more of the same " * 20
    long = timeline({"written": written, "start_sample": RATE_HZ, "end_sample": 21 * RATE_HZ})
    for text in (vtt(long), srt(long)):
        shown = [lines for _, _, lines in cues(text)]
        assert " ".join(line for lines in shown for line in lines) == " ".join(written.split())
        assert all(1 <= len(lines) <= 2 for lines in shown)
        assert all(0 < len(line) <= LINE_CHARS for lines in shown for line in lines)
        assert text.count("-->") == len(shown) == 5


def test_cues_of_a_segment_share_its_time_by_their_letters() -> None:
    """Its own bounds stay exact, and one cue ends where the next begins."""
    word = "x" * LINE_CHARS
    text = srt(
        timeline(
            {"written": f"{word} {word} {word[:21]}", "start_sample": RATE_HZ, "end_sample": 11 * RATE_HZ},
            {"written": "The end.", "start_sample": 12 * RATE_HZ, "end_sample": 13 * RATE_HZ},
        )
    )
    assert cues(text) == [
        ("00:00:01,000", "00:00:09,000", [word, word]),
        ("00:00:09,000", "00:00:11,000", [word[:21]]),
        ("00:00:12,000", "00:00:13,000", ["The end."]),
    ]
    assert [line for line in text.splitlines() if line.isdigit()] == ["1", "2", "3"]


def test_a_word_longer_than_a_line_stays_whole() -> None:
    word = "x" * (LINE_CHARS + 10)
    assert word in vtt(timeline({"written": f"The {word} end", "start_sample": 0, "end_sample": 9})).splitlines()


def test_markup_in_the_text_is_text_in_webvtt() -> None:
    text = vtt(timeline({"written": "<b>3 < 4</b> & 1 --> 2", "start_sample": 0, "end_sample": RATE_HZ}))
    assert text.splitlines()[4] == "&lt;b&gt;3 &lt; 4&lt;/b&gt; &amp; 1 --&gt; 2"


def test_markup_in_the_text_is_no_markup_in_subrip() -> None:
    text = srt(timeline({"written": "<b>3 < 4</b> {\\an8} 1 --> 2", "start_sample": 0, "end_sample": RATE_HZ}))
    written = text.splitlines()[2]
    assert "-->" not in written
    assert not re.search(r"</?[a-z]|\{\\", written)
    assert written.replace("\u2060", "") == "<b>3 < 4</b> {\\an8} 1 --> 2"


def test_whoever_is_not_the_narrator_is_named() -> None:
    spoken = timeline(
        {"written": "Who is there?", "character": "the hero", "start_sample": 0, "end_sample": RATE_HZ},
        {"written": "Silence.", "start_sample": RATE_HZ, "end_sample": 2 * RATE_HZ},
    )
    assert "<v the hero>Who is there?</v>\n" in vtt(spoken)
    assert "\nSilence.\n" in vtt(spoken)
    assert "hero" not in srt(spoken)


def test_what_is_not_heard_or_not_written_has_no_cue() -> None:
    spoken = timeline(
        {"written": "Never spoken.", "start_sample": 0, "end_sample": 0},
        {"written": "  ", "start_sample": 0, "end_sample": RATE_HZ},
        {"written": "Heard.", "start_sample": RATE_HZ, "end_sample": 2 * RATE_HZ},
    )
    assert vtt(spoken).count("-->") == srt(spoken).count("-->") == 1
    assert srt(spoken).startswith("1\n")


# By word.


def by_word() -> Timeline:
    """Two short words, a pause, and a word that is not spoken at all."""
    return timeline(
        {
            "written": "Who — there? 3 < 4.",
            "character": "the hero",
            "start_sample": RATE_HZ,
            "end_sample": 4 * RATE_HZ,
            "words": tuple(
                (round(RATE_HZ * start_s), round(RATE_HZ * end_s))
                for start_s, end_s in ((1.05, 1.3), (1.3, 1.3), (1.3, 1.8), (2.5, 2.8), (2.8, 3.2), (3.2, 3.9))
            ),
        }
    )


def test_webvtt_by_word_says_within_the_lines_when_each_word_begins() -> None:
    assert vtt(by_word(), CaptionsBy.WORD) == (
        "WEBVTT\n\n1\n00:00:01.000 --> 00:00:04.000\n"
        "<v the hero><00:00:01.050>Who <00:00:01.300>— there? "
        "<00:00:02.500>3 <00:00:02.800>&lt; <00:00:03.200>4.</v>\n"
    )


def test_subrip_by_word_has_a_cue_for_each_that_stays_until_the_next_is_spoken() -> None:
    assert cues(srt(by_word(), CaptionsBy.WORD)) == [
        ("00:00:01,050", "00:00:01,300", ["Who"]),
        ("00:00:01,300", "00:00:02,500", ["— there?"]),
        ("00:00:02,500", "00:00:02,800", ["3"]),
        ("00:00:02,800", "00:00:03,200", ["<\u2060"]),
        ("00:00:03,200", "00:00:04,000", ["4."]),
    ]


def test_lines_change_with_the_first_word_of_the_next() -> None:
    words = ["x" * LINE_CHARS] * 3
    at = ((0, 1), (1, 2), (7, 8))
    text = srt(
        timeline(
            {
                "written": " ".join(words),
                "start_sample": 0,
                "end_sample": 9 * RATE_HZ,
                "words": tuple((start_s * RATE_HZ, end_s * RATE_HZ) for start_s, end_s in at),
            }
        )
    )
    assert [(start, end) for start, end, _ in cues(text)] == [
        ("00:00:00,000", "00:00:07,000"), ("00:00:07,000", "00:00:09,000"),
    ]  # fmt: skip


def test_the_times_within_a_cue_grow_and_lie_within_it() -> None:
    """Players pass over a cue whose times do not."""
    written = "never spoken at all, " * 20
    whole = {"written": written, "start_sample": 0, "end_sample": RATE_HZ, "words": ((9, 9),) * len(written.split())}
    for cue in vtt(timeline(whole), CaptionsBy.WORD).split("\n\n")[1:]:
        start, end, *inside = re.findall(r"\d\d:\d\d:\d\d\.\d\d\d", cue)
        assert start < end
        assert [start, *inside, end] == sorted({start, *inside, end})
