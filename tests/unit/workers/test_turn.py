"""The text of a turn: what may follow on what, how much may wait, and when flushes are due."""

from __future__ import annotations

import re

import pytest

from app.errors import InvalidRequest, TextAfterEnd, TextTooLong
from app.platform.settings import SessionSettings
from app.speech.protocol import Resumption, Utter
from app.speech.text.emoji import CHARS
from app.speech.text.markup import Markup
from app.speech.text.options import EmojiReading, TextOptions
from app.speech.token_layout import ORPHEUS_TAGS
from workers.turn import MAX_GROWTH, TurnText

SETTINGS = SessionSettings(max_pending_chars=1_000, max_input_chars=1_000)


def turn(*, ended: bool = False) -> TurnText:
    return TurnText(Resumption(), tags=ORPHEUS_TAGS, settings=SETTINGS, ended=ended)


def test_text_is_counted_until_a_chunk_begins_with_it() -> None:
    text = turn()
    text.push("One sentence. ")
    text.end()
    assert text.pending_chars > 0
    chunk = text.next()
    assert chunk is not None and chunk.text == "One sentence."
    assert text.next() is None and text.pending_chars == 0


def test_more_than_cleaning_could_make_of_the_announced_text_is_refused() -> None:
    text = turn()
    text.push("a" * MAX_GROWTH * SETTINGS.max_pending_chars)
    with pytest.raises(TextTooLong, match="96001 characters would be pending; at most 96000"):
        text.push("bb")


def test_no_sign_grows_beyond_what_is_taken() -> None:
    """Whatever a front door lets a client send is taken here, however it is to be read."""
    options, emoji = TextOptions(emoji=EmojiReading.NAME), re.compile(f"[{CHARS}]")
    for written in (f"{char}x" for char in map(chr, range(0x110000)) if emoji.match(char) or char < "\u0500"):
        markup = Markup(options)
        assert len(markup.push(written) + markup.finish()) <= MAX_GROWTH * len(written), written


def test_text_and_utterances_do_not_wait_together() -> None:
    text, other = turn(), turn()
    text.push("A text")
    with pytest.raises(InvalidRequest, match="while text is pending"):
        text.utter(Utter(session="s", text="An utterance."))
    other.utter(Utter(session="s", text="An utterance."))
    with pytest.raises(InvalidRequest, match="while utterances are pending"):
        other.push("A text")


def test_a_turn_that_begins_after_the_end_takes_nothing() -> None:
    text = turn(ended=True)
    with pytest.raises(TextAfterEnd):
        text.push("Too late.")
    with pytest.raises(TextAfterEnd):
        text.utter(Utter(session="s", text="Too late."))
    with pytest.raises(InvalidRequest, match="flush after eos"):
        text.flush()


def test_flushes_are_taken_one_by_one_up_to_the_text_that_was_spoken() -> None:
    text = turn()
    text.push("One.")
    text.flush()
    text.push("Two.")
    text.flush()
    assert not text.pop_flush(3)
    assert text.pop_flush(4) and not text.pop_flush(4)
    assert text.pop_flush(None) and not text.has_flushes
