"""Sentences are read as words by the real normaliser; whatever becomes of its process, none is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

import psutil
import pytest

from app.errors import ManuscriptUnfit, StageFailed
from app.narration.models import Manuscript, ManuscriptChapter, NarrationOptions, Paragraph
from app.narration.normaliser import Normaliser, NormaliserLimits, mended, write_script
from app.speech.text.options import TextOptions
from app.speech.text.spoken import spoken

pytestmark = pytest.mark.anyio

TAGS = ("<laugh>", "<sigh>")


@pytest.fixture
async def normaliser() -> AsyncIterator[Normaliser]:
    async with Normaliser("en", tags=TAGS) as normaliser:
        yield normaliser


def manuscript(*texts: str, title: str = "") -> Manuscript:
    paragraphs = tuple(Paragraph(text=text) for text in texts)
    return Manuscript(chapters=(ManuscriptChapter(title=title, paragraphs=paragraphs),))


READINGS = {
    "Chapter IV": "Chapter four",
    "King Henry VIII died in 1547.": "King Henry the eighth died in fifteen forty seven.",
    "Mr. Hale paid $5.20.": "Mister Hale paid five dollars twenty cents.",
    "“It is £3.50,” she said; ‘and 50% more!’": "“It is three pounds fifty pence,” she said; ‘and fifty percent more!’",
    "On Jan. 5, 1999, it was -4 °C.": "On January fifth, nineteen ninety nine, it was minus four degrees Celsius.",
    "They came at 10:30 p.m.": "They came at ten thirty P M.",
    "Oh <laugh> 3 of them <sigh>": "Oh <laugh> three of them <sigh>",
    "He [the king] had 3 {odd} things.": "He the king had three odd things.",
    "It was a *very* long way; 5 miles, to be \\ exact, ‘or so’—they said – all of them.": (
        "It was a very long way; five miles, to be exact, ‘or so’—they said – all of them."
    ),
    "“7,” she said—“8!”": "“seven,” she said—“eight!”",
    "He said, ‘5 men’—no, 6 — or “8” to me.": "He said, ‘five men’—no, six — or “eight” to me.",
    "It cost £3 10s. 6d., or 5¢, on pp. 3-5.": (
        "It cost three pounds ten shillings six pence., or five cents, on pages three to five."
    ),
    "Call 555-1234 now.": "Call five five five, one two three four now.",
    "12,345 men, e.g. sailors": "twelve thousand three hundred forty five men, for example sailors",
}


@pytest.mark.parametrize("written", READINGS)
async def test_english_is_read_as_in_live_sessions(written: str) -> None:
    assert spoken(written, TextOptions(), tags=TAGS) == READINGS[written]


async def test_other_languages_are_read_by_the_grammars() -> None:
    script = await write_script(manuscript("Er hat 3 Hunde."), NarrationOptions(), tags=TAGS, language="de")
    assert script.chapters[0].segments[0].spoken == "Er hat drei Hunde."


async def test_words_start_no_process() -> None:
    async with Normaliser("en") as normaliser:
        assert await normaliser.read(["It was dark."]) == {"It was dark.": "It was dark."}
        assert normaliser.pid is None


async def test_a_process_that_was_killed_is_started_anew(normaliser: Normaliser) -> None:
    await normaliser.read(["1 man"])
    assert normaliser.pid
    os.kill(normaliser.pid, signal.SIGKILL)
    assert await normaliser.read(["2 men"]) == {"2 men": "two men"}


async def test_a_sentence_over_which_it_falls_silent_is_left_unread() -> None:
    async with Normaliser("en", limits=NormaliserLimits(sentence_s=0)) as normaliser:
        assert await normaliser.read(["2 men", "None."]) == {"2 men": None, "None.": "None."}


async def test_numbers_are_left_unread_once_the_time_for_a_text_is_spent() -> None:
    async with Normaliser("en", limits=NormaliserLimits(total_s=0)) as normaliser:
        assert await normaliser.read(["2 men", "3 men"]) == {"2 men": "two men", "3 men": None}


async def test_a_text_over_which_the_process_dies_again_and_again_is_not_read_by_another() -> None:
    async with Normaliser("en", limits=NormaliserLimits(sentence_s=0, losses=1)) as normaliser:
        with pytest.raises(ManuscriptUnfit, match="died or hung 2 times and read nothing") as failed:
            await normaliser.read(["2 men"])
    assert not failed.value.retryable


async def test_once_it_died_too_often_the_rest_of_a_text_is_left_unread() -> None:
    async with Normaliser("en", limits=NormaliserLimits(losses=0)) as normaliser:
        assert await normaliser.read(["1 man"]) == {"1 man": "one man"}
        assert normaliser.pid
        os.kill(normaliser.pid, signal.SIGKILL)
        assert await normaliser.read(["2 men", "3 men", "None."]) == {"2 men": None, "3 men": None, "None.": "None."}
        assert normaliser.pid is None


async def test_a_process_that_does_not_start_fails_the_stage_with_its_last_words() -> None:
    async with Normaliser("tlh") as normaliser:
        with pytest.raises(StageFailed, match="did not start; it said: ValueError: Unsupported language 'tlh'"):
            await normaliser.read(["2 men"])


async def test_its_process_ends_with_the_block() -> None:
    async with Normaliser("en") as normaliser:
        await normaliser.read(["2 men"])
        assert normaliser.pid
        process = psutil.Process(normaliser.pid)
    assert not process.is_running()


@pytest.mark.parametrize(
    ("written", "reading", "spoken"),
    [
        ("At 10 p.m.", "At ten PM", "At ten PM."),
        ("said—“8!”", "said —“ eight!”", "said—“eight!”"),
        ("He came at 5.”", "He came at five.”", "He came at five.”"),
        ("5", "", None),
        ("5", None, None),
        ("5 [men]", "5 \\[men\\]", None),
        ("Mfite 3", "tokens { name: mfite } three", None),
        ("On 5 dark nights nobody came there", "On five", None),
    ],
)
async def test_nonsense_is_not_spoken_and_a_swallowed_stop_is_put_back(
    written: str, reading: str | None, spoken: str | None
) -> None:
    assert mended(written, reading) == spoken


async def test_a_script_has_what_was_written_and_how_it_is_spoken() -> None:
    script = await write_script(
        manuscript("It was 1815. <laugh> Nobody came.", title="CHAPTER IV"),
        NarrationOptions(replacements={"nobody": "no one"}),
        tags=TAGS,
        language="en-GB",
    )
    assert [(segment.written, segment.spoken) for segment in script.chapters[0].segments] == [
        ("CHAPTER IV", "Chapter four."),
        ("It was 1815. <laugh> Nobody came.", "It was eighteen fifteen. <laugh> no one came."),
    ]
    assert (script.language, script.findings) == ("en-GB", ())


async def test_another_language_is_spoken_as_written_and_told_once() -> None:
    script = await write_script(manuscript("5.", "6."), NarrationOptions(), tags=TAGS, language="tlh")
    assert [segment.spoken for segment in script.chapters[0].segments] == ["5.", "6."]
    (finding,) = script.findings
    assert finding.code == "not_normalised"
    assert "'tlh'" in finding.message


async def test_who_wants_no_normaliser_gets_none() -> None:
    script = await write_script(
        manuscript("Mr. X is 5."), NarrationOptions(normalise=False), tags=TAGS, language="en",
    )  # fmt: skip
    assert script.chapters[0].segments[0].spoken == "Mr. X is 5."
    assert not script.findings
