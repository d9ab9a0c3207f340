"""What a chat model reads of a conversation in which people interrupt."""

from __future__ import annotations

from app.talk.dialogue import MOST_MESSAGES, Dialogue, Said


def test_an_answer_that_was_cut_off_is_kept_as_far_as_it_was_heard() -> None:
    dialogue = Dialogue()
    dialogue.asked("Tell me a story.")
    dialogue.answered("There was once", cut=True)
    dialogue.asked("Another one.")
    assert dialogue.messages == (
        Said("user", "Tell me a story."),
        Said("assistant", "There was once …"),
        Said("user", "Another one."),
    )


def test_what_a_person_adds_before_the_answer_is_heard_is_one_message() -> None:
    dialogue = Dialogue()
    dialogue.asked("Tell me a story.")
    dialogue.answered("", cut=True)
    dialogue.asked("A short one.")
    assert dialogue.messages == (Said("user", "Tell me a story. A short one."),)


def test_an_answer_can_be_tried_without_anything_being_said_for_sure() -> None:
    dialogue = Dialogue()
    assert dialogue.with_question("Who are you?") == (Said("user", "Who are you?"),)
    assert dialogue.messages == ()


def test_the_latest_messages_are_kept() -> None:
    dialogue = Dialogue()
    for number in range(MOST_MESSAGES):
        dialogue.asked(f"question {number}")
        dialogue.answered(f"answer {number}")
    assert len(dialogue.messages) == MOST_MESSAGES
    assert dialogue.messages[-1] == Said("assistant", f"answer {MOST_MESSAGES - 1}")
