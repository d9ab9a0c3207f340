"""The text of a turn: what may follow on what, how much may wait, and when flushes are due."""

from __future__ import annotations

import pytest

from app.errors import InvalidRequest, TextAfterEnd
from app.platform.settings import SessionSettings
from app.speech.protocol import Resumption, Utter
from app.speech.token_layout import ORPHEUS_TAGS
from workers.turn import TurnText

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
