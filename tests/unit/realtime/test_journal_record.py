"""A journal's record: its reader goes on exactly as its writer would have."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.realtime.journal import RECORD_VERSION, RECORDED_CHARS, Command, Journal
from app.speech.protocol import Eos, Flush, Flushed, Text
from tests.unit.realtime.test_journal import (
    ANY_TEXT,
    SAMPLES_PER_CHAR,
    TAGS,
    Speaker,
    cancel,
    moved,
    spoken_journal,
    text,
)

RATE_HZ = 8_000
KEEP_S = 0.5
KEEP_SAMPLES = 40 * SAMPLES_PER_CHAR

EVENTS = st.lists(
    st.one_of(
        ANY_TEXT.map(text),
        st.just(Flush(session="s")),
        st.just(cancel(50)),
        st.just("speak"),
        st.just("begin"),
        st.just("answer a flush"),
    ),
    max_size=25,
)


def happen(journal: Journal, speaker: Speaker, event: Command | str) -> None:
    match event:
        case "speak" | "begin":
            if journal.between_chunks and (chunk := speaker.begin()):
                until = None if event == "speak" else len(chunk.text) // 2
                speaker.speak(chunk.text, start=speaker.samples, until=until)
        case "answer a flush":
            journal.received(Flushed(session="s", samples=journal.samples))
        case Text() | Flush() | Eos():
            journal.sent(event)
            speaker.take(event)
        case _:
            assert not isinstance(event, str)
            journal.sent(event)


@given(EVENTS, st.booleans(), st.none() | st.integers(0, 200 * SAMPLES_PER_CHAR))
@example([text("One. Two two two. Three. "), Flush(session="s"), "speak", "speak", "begin"], True, 500)
def test_a_restored_journal_moves_as_the_original_does(
    events: list[Command | str], ended: bool, from_sample: int | None
) -> None:
    journal = Journal(tags=TAGS, sample_rate_hz=RATE_HZ, keep_samples=KEEP_SAMPLES)
    speaker, _ = moved(journal)
    for event in events:
        happen(journal, speaker, event)
    if ended:
        journal.sent(Eos(session="s"))

    restored = Journal.restored(journal.record(), keep_s=KEEP_S)

    assert restored.cancels == journal.cancels
    assert [restored.spoken_text(sample) for sample in (0, 777, 10**9)] == [
        journal.spoken_text(sample) for sample in (0, 777, 10**9)
    ]
    assert restored.move(from_sample=from_sample) == journal.move(from_sample=from_sample)
    assert restored.record() == journal.record()


def test_each_change_gives_another_version() -> None:
    journal = Journal(tags=TAGS)
    versions = [journal.version]
    for command in (text("Words."), Flush(session="s"), cancel()):
        journal.sent(command)
        versions.append(journal.version)
    journal.received(Flushed(session="s", samples=0))
    versions.append(journal.version)
    assert len(set(versions)) == len(versions)


def test_a_record_of_another_version_is_refused() -> None:
    record = Journal(tags=TAGS).record().replace(f'"version":{RECORD_VERSION}'.encode(), b'"version":9')
    with pytest.raises(ValueError, match="version 9"):
        Journal.restored(record)


def test_of_what_was_played_long_ago_a_record_keeps_only_the_last_words() -> None:
    journal = Journal(tags=TAGS, sample_rate_hz=RATE_HZ, keep_samples=KEEP_SAMPLES)
    speaker, _ = moved(journal)
    for number in range(RECORDED_CHARS // 10):
        piece = text(f"This is sentence number {number}. ")
        journal.sent(piece)
        speaker.take(piece)
        while chunk := speaker.begin():
            speaker.speak(chunk.text, start=speaker.samples)
    journal.sent(text("And more."))

    record = journal.record()

    assert len(record) < 4 * RECORDED_CHARS
    assert Journal.restored(record).spoken_text(10**9).endswith(f"number {RECORDED_CHARS // 10 - 2}.")
    assert Journal.restored(record, keep_s=KEEP_S).move() == journal.move()


def test_a_listener_within_the_chunk_before_one_that_has_just_begun_loses_nothing() -> None:
    journal = spoken_journal(keep_samples=100_000)
    speaker = Speaker(journal, *journal.move())
    speaker.splitter.flush()
    assert speaker.begin()

    resumption, commands = journal.move(from_sample=1700)

    assert resumption.chunk and resumption.chunk.text == "Three three."
    assert isinstance(commands[0], Text) and commands[0].text.strip().startswith("Four four")


def test_a_chunk_that_is_played_again_in_part_is_still_finished_if_that_too_breaks_off() -> None:
    journal = spoken_journal(keep_samples=100_000)
    end = journal.samples
    speaker, _ = moved(journal, from_sample=1600)
    again = journal.move(from_sample=1600)[0].chunk
    assert again
    speaker.receive(1600, SAMPLES_PER_CHAR)

    resumption, _ = journal.move()

    assert resumption.samples == 1600 + SAMPLES_PER_CHAR < end
    assert resumption.chunk and resumption.chunk.text == "Three three."


def test_a_flush_whose_answer_lies_behind_the_listener_is_answered_again() -> None:
    journal = Journal(tags=TAGS, keep_samples=100_000)
    speaker, _ = moved(journal)
    for command in (text("One one."), Flush(session="s")):
        happen(journal, speaker, command)
    happen(journal, speaker, "speak")
    happen(journal, speaker, "answer a flush")
    assert [command.type for command in journal.move()[1]] == []
    assert [command.type for command in journal.move(from_sample=100)[1]] == ["flush"]


@pytest.mark.parametrize("record", [b"", b"\x02\x00\x00\x00{}", b"\x0d\x00\x00\x00" + b'{"version":2}'])
def test_a_record_that_lacks_what_this_version_needs_is_of_another_version(record: bytes) -> None:
    with pytest.raises(ValueError, match="version"):
        Journal.restored(record)
