"""The scripted host: what it answers to what it looks for, and that it says what it is."""

from __future__ import annotations

import pytest

from app.talk.cues import reads_finished, says_go_on
from app.talk.dialogue import Said
from app.talk.host import GREETING, SENTENCES_AT_A_TIME, ScriptedHost

pytestmark = pytest.mark.anyio


async def answer(*said: str) -> str:
    """To the last of what a person and the host said in turn."""
    dialogue = [Said("user" if number % 2 == 0 else "assistant", text) for number, text in enumerate(said)]
    return "".join([piece async for piece in ScriptedHost().answer(dialogue)]).strip()


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Hello there.", GREETING),
        ("Count to three.", "One, two, three."),
        ("Please count to 4.", "One, two, three, four."),
        ("Can you count?", "One, two, three, four, five."),
        ("Count to zero, or one.", "One."),
    ],
)  # fmt: skip
async def test_it_greets_and_counts(question: str, expected: str) -> None:
    assert await answer(question) == expected


async def test_it_counts_no_further_than_twenty() -> None:
    assert (await answer("Count to 99.")).endswith("nineteen, twenty.")


async def test_it_says_that_it_is_no_model() -> None:
    assert "not a language model" in await answer("Hello.")
    assert "No language model" in await answer("Who are you?")


async def test_it_tells_what_it_heard() -> None:
    assert (await answer("The sky is green.")).startswith("I heard: The sky is green.")


async def test_it_goes_on_with_the_story_where_it_ended_and_where_it_was_cut_off() -> None:
    first = await answer("Tell me a story.")
    assert first.startswith("There was once a small island")
    assert first.count(". ") == SENTENCES_AT_A_TIME - 1
    second = await answer("Tell me a story.", first, "Go on.")
    assert second.startswith("The people of the town")
    assert await answer("Tell me a story.", "There was once a small …", "Go on with the story.") == first


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("What is your name?", True), ("Stop!", True), ("Tell me about the", False), ("Tell me about the.", False),
        ("Well,", False), ("", False), ("...", False), ("I was thinking of.", False),
    ],
)  # fmt: skip
def test_a_text_reads_finished_if_it_ends_as_a_sentence_does(text: str, finished: bool) -> None:
    assert reads_finished(text) is finished


@pytest.mark.parametrize(
    ("text", "go_on"),
    [("Yeah.", True), ("Mm-hm.", True), ("", True), ("Oh, right, okay.", True), ("Stop.", False),
     ("Yeah, but no", False), ("Yes yes yes yes yes", False)],
)  # fmt: skip
def test_a_backchannel_asks_for_no_turn(text: str, go_on: bool) -> None:
    assert says_go_on(text) is go_on
