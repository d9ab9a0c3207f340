"""A session's journal: wherever a worker is lost, the next one gets exactly what is left to speak."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.realtime.journal import Command, Journal
from app.speech.protocol import (
    MAX_MESSAGE_BYTES,
    AudioFrame,
    Begun,
    Cancel,
    Cancelled,
    Eos,
    Flush,
    Flushed,
    Resumption,
    Segment,
    Text,
)
from app.speech.text import Chunk, Cleaner, TextSplitter, marks
from app.speech.text.options import EmojiReading, TextOptions

TAGS = ("<laugh>", "<sigh>")
CODES_PER_CHAR = 7
SAMPLES_PER_CHAR = 100

ANY_TEXT = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Co")), max_size=600),
    st.lists(
        st.sampled_from(
            [
                "word",
                "Stop. ",
                "“Why?” ",
                "x" * 90,
                "<laugh>",
                "<b>",
                "<strong>",
                "…",
                "12,345",
                "日本語。",
                "é́",
                "é",
                "\n\n",
                " ",
                "<",
            ]
        ),
        max_size=120,
    ).map("".join),
)


def text(words: str) -> Text:
    return Text(session="s", text=words)


def cancel(played: int | None = None) -> Cancel:
    return Cancel(session="s", played_samples=played)


class Speaker:
    """A worker's side of a session, chunk by chunk: each character is so many samples, made of so many codes."""

    def __init__(self, journal: Journal, resume: Resumption, commands: list[Command]) -> None:
        self.journal = journal
        self.at = resume
        self.samples = resume.samples
        self.generation = resume.generation
        self.splitter = TextSplitter(tags=TAGS, begun=resume.chars > 0)
        self.spoken: list[str] = []
        self.flushes: list[int] = []
        self.spoken_until = 0 if resume.chunk else -1
        """In the splitter's characters."""
        if resume.chunk:
            self.speak(resume.chunk.text, start=resume.chunk.start_sample, known=len(resume.chunk.codes))
        for command in commands:
            self.take(command)

    def take(self, command: Command) -> None:
        match command:
            case Text():
                self.splitter.push(command.text)
            case Flush():
                self.flushes.append(self.splitter.flush())
            case Eos():
                self.splitter.close()
            case Cancel():
                self.generation += 1
                self.journal.received(
                    Cancelled(session="s", generation=self.generation, spoken_text="", samples=self.samples)
                )

    def begin(self) -> Chunk | None:
        """Answer the flushes behind the chunk spoken last, and begin the next."""
        self.answer_flushes(self.spoken_until)
        chunk = self.splitter.next_chunk(eager=True)
        if chunk is None:
            self.answer_flushes(self.flushes[-1] if self.flushes else 0)
        else:
            self.spoken_until = chunk.end
            self.journal.received(
                Begun(
                    session="s",
                    generation=self.generation,
                    text=chunk.text,
                    start_char=self.at.chars + chunk.start,
                    end_char=self.at.chars + chunk.end,
                    start_sample=self.samples,
                )
            )
        return chunk

    def answer_flushes(self, until: int) -> None:
        while self.flushes and self.flushes[0] <= until:
            self.flushes.pop(0)
            self.journal.received(Flushed(session="s", samples=self.samples))

    def receive(self, start: int, samples: int, codes: bytes = b"") -> None:
        self.journal.received(AudioFrame(0, self.generation, 0, start, bytes(2 * samples), codes))

    def speak(self, words: str, *, start: int, known: int = 0, until: int | None = None) -> None:
        """Send what is missing of a chunk, up to so many of its characters; whole without `until`."""
        for index in range(known // CODES_PER_CHAR, len(words) if until is None else until):
            codes = np.full(CODES_PER_CHAR, ord(words[index]) % 4096, dtype="<u2").tobytes()
            self.receive(start + index * SAMPLES_PER_CHAR, SAMPLES_PER_CHAR, codes)
        if until is None:
            self.samples = start + len(words) * SAMPLES_PER_CHAR
            self.spoken.append(words)
            self.journal.received(
                Segment(
                    session="s",
                    generation=self.generation,
                    text=words,
                    start_sample=start,
                    end_sample=self.samples,
                )
            )


def moved(journal: Journal, *, from_sample: int | None = None) -> tuple[Speaker, Resumption]:
    resumption, commands = journal.move(from_sample=from_sample)
    return Speaker(journal, resumption, commands), resumption


def unspaced(words: str) -> str:
    return "".join(words.split())


def commands_for(written: str, flushes: list[int]) -> list[Command]:
    """`written` in pieces, flushed at any places: also within a tag, or before a mark."""
    places = sorted(flush % (len(written) + 1) for flush in flushes)
    commands: list[Command] = []
    for number, (start, end) in enumerate(pairwise((0, *places, len(written)))):
        commands += [Flush(session="s")] * (number > 0)
        commands += (text(written[at : min(at + 23, end)]) for at in range(start, end, 23))
    return commands


def cleaned(commands: list[Command]) -> str:
    cleaner, words = Cleaner(TAGS), ""
    for command in commands:
        words += cleaner.push(command.text) if isinstance(command, Text) else cleaner.finish()
    return words + cleaner.finish()


@settings(max_examples=300, deadline=None)
@given(
    ANY_TEXT,
    st.lists(st.integers(0, 600), max_size=8),
    st.lists(st.integers(0, 40), min_size=1, max_size=6),
    st.booleans(),
)
@example("One two three. <b>Four</b>  five   six seven eight.", [], [1, 0], True)
@example("é" * 30 + ". " + "日本語。" * 9, [], [0, 3], True)
@example("Say <b> now please. More of it.", [6], [1, 0], True)
@example("Say <b> now please. More of it.", [6, 20], [2, 0], True)
@example("<strong>Hi.</strong> There is more of it.", [], [0], True)
@example("Say <b> now please. More of it.", [6, 12], [2, 1, 0], False)
def test_wherever_workers_are_lost_every_word_is_spoken_once(
    written: str, flushes: list[int], lives: list[int], at_once: bool
) -> None:
    """Each life ends within its nth chunk; the text comes before them all, or piece by piece while it is spoken."""
    journal = Journal(tags=TAGS)
    commands = [*commands_for(written, flushes), Eos(session="s")]
    speaker, _ = moved(journal)
    said: list[str] = []
    waiting = deque(commands)

    def send(most: int) -> None:
        for _ in range(min(most, len(waiting))):
            journal.sent(waiting[0])
            speaker.take(waiting.popleft())

    if at_once:
        send(len(waiting))
    for chunks in lives:
        for _ in range(chunks):
            send(1)
            if chunk := speaker.begin():
                speaker.speak(chunk.text, start=speaker.samples)
        if chunk := speaker.begin():
            speaker.speak(chunk.text, start=speaker.samples, until=len(chunk.text) // 2)
        said += speaker.spoken
        speaker, resumption = moved(journal)
        if chunk:
            assert resumption.chunk and resumption.chunk.text == chunk.text
            assert len(resumption.chunk.codes) == len(chunk.text) // 2 * CODES_PER_CHAR
    send(len(waiting))
    while chunk := speaker.begin():
        speaker.speak(chunk.text, start=speaker.samples)
    said += speaker.spoken
    assert unspaced("".join(said)) == unspaced(cleaned(commands[:-1]))
    assert journal.samples == sum(map(len, said)) * SAMPLES_PER_CHAR
    assert journal.pending_chars >= 0


def test_a_flush_before_which_there_is_no_word_still_parts_the_text() -> None:
    """Nothing begins there: the worker answers at once, and does not take the two for one tag."""
    journal = Journal(tags=TAGS)
    for command in (text("<"), Flush(session="s")):
        journal.sent(command)
    journal.received(Flushed(session="s", samples=0))
    journal.sent(text("b> now please. More of it."))
    assert journal.pending_chars == 26
    journal.received(Begun(session="s", generation=0, text="b> now please.", start_char=1, end_char=15, start_sample=0))

    _, commands = journal.move()

    assert commands == [Text(session="-", text="More of it.")]


def test_what_no_chunk_has_begun_with_is_pending() -> None:
    journal = Journal(tags=TAGS)
    speaker, _ = moved(journal)
    for command in (text("One two three.  Four"), text(" five.")):
        journal.sent(command)
        speaker.take(command)
    assert journal.pending_chars == 26
    speaker.begin()
    assert journal.pending_chars == len("Four five.")


def test_a_flush_that_was_not_answered_is_repeated_at_its_place() -> None:
    journal = Journal(tags=TAGS)
    for command in (text("One."), Flush(session="s"), text(" Two."), Flush(session="s"), text(" Three.")):
        journal.sent(command)
    journal.received(Begun(session="s", generation=0, text="One.", start_char=0, end_char=4, start_sample=0))
    journal.received(Segment(session="s", generation=0, text="One.", start_sample=0, end_sample=9))
    journal.received(Flushed(session="s", samples=9))

    _, commands = journal.move()

    assert [getattr(command, "text", command.type) for command in commands] == ["Two.", "flush", " Three."]


def test_a_cancel_that_was_not_answered_goes_first_and_nothing_before_it_is_said() -> None:
    journal = Journal(tags=TAGS)
    journal.sent(text("The old turn. It goes on."))
    journal.received(Begun(session="s", generation=0, text="The old turn.", start_char=0, end_char=13, start_sample=0))
    journal.received(AudioFrame(0, 0, 0, 0, bytes(200), bytes(14)))
    for command in (cancel(50), text("The new turn.")):
        journal.sent(command)

    resumption, commands = journal.move()

    assert resumption.chunk is None
    assert (resumption.samples, resumption.chars) == (100, 0)
    assert [command.type for command in commands] == ["cancel", "text"]
    assert journal.spoken_text(10**6) == "The old turn."


def test_after_a_cancel_the_next_turn_counts_its_text_from_nothing() -> None:
    journal = Journal(tags=TAGS)
    journal.sent(text("The old turn."))
    journal.sent(cancel())
    journal.received(Cancelled(session="s", generation=1, spoken_text="", samples=700))
    journal.sent(text("A new one."))

    resumption, commands = journal.move()

    assert (resumption.generation, resumption.samples, resumption.chars) == (1, 700, 0)
    assert commands == [Text(session="-", text="A new one.")]


def test_the_end_is_sent_again_also_behind_a_cancel() -> None:
    journal = Journal(tags=TAGS)
    for command in (text("Words."), Eos(session="s"), cancel()):
        journal.sent(command)
    assert [command.type for command in journal.move()[1]] == ["cancel", "eos"]


def test_a_long_text_is_sent_in_pieces_that_fit_a_message() -> None:
    journal = Journal(tags=TAGS)
    written = "Ten chars. " * 4000
    journal.sent(text(written))
    commands = [command for command in journal.move()[1] if isinstance(command, Text)]
    assert len(commands) > 1
    assert "".join(command.text for command in commands) == written


def test_text_that_grows_as_it_is_read_is_sent_in_pieces_and_counted_as_written() -> None:
    journal = Journal(tags=TAGS, options=TextOptions(emoji=EmojiReading.NAME))
    written = "🔂x" * 10_000

    sent = [*journal.sent(text(written)), *journal.sent(Flush(session="s"))]

    pieces = [command.text for command in sent if isinstance(command, Text)]
    assert len("".join(pieces)) > 20 * len(written)
    assert max(len(piece.encode()) for piece in pieces) < MAX_MESSAGE_BYTES
    assert isinstance(sent[-1], Flush)
    assert journal.pending_chars == len(written)


def test_a_thought_is_not_pending() -> None:
    journal = Journal(tags=TAGS, options=TextOptions())
    journal.sent(text("<think>" + "Hm. " * 9_000))
    assert journal.pending_chars == 0


def spoken_journal(keep_samples: int) -> Journal:
    """Three sentences of which all was received, a fourth that waits."""
    journal = Journal(tags=TAGS, keep_samples=keep_samples)
    speaker, _ = moved(journal)
    written = text("One one. Two two. Three three. Four four is long enough to be begun by itself. ")
    journal.sent(written)
    speaker.take(written)
    speaker.splitter._batch_chars = 1
    for _ in range(3):
        chunk = speaker.begin()
        assert chunk
        speaker.speak(chunk.text, start=speaker.samples)
    return journal


@pytest.mark.parametrize(("sample", "text_again"), [(850, "Two two."), (1599, "Two two."), (1600, "Three three.")])
def test_a_listener_that_lost_audio_is_read_on_from_where_it_was(sample: int, text_again: str) -> None:
    resumption, _ = spoken_journal(keep_samples=100_000).move(from_sample=sample)
    assert resumption.samples == sample
    assert resumption.chunk and resumption.chunk.text == text_again
    assert resumption.chunk.whole
    assert len(resumption.chunk.codes) == len(text_again) * CODES_PER_CHAR


def test_beyond_what_is_kept_it_is_read_on_from_the_first_sample_that_is() -> None:
    resumption, commands = spoken_journal(keep_samples=1300).move(from_sample=10)
    assert resumption.samples == 800
    assert resumption.chunk and resumption.chunk.text == "Two two."
    assert isinstance(commands[0], Text) and commands[0].text.strip().startswith("Three three.")


def test_what_was_all_received_is_not_spoken_again() -> None:
    journal = spoken_journal(keep_samples=100_000)
    resumption, commands = journal.move(from_sample=journal.samples)
    assert resumption.chunk is None
    assert isinstance(commands[0], Text) and commands[0].text.strip().startswith("Four four")


def test_markup_is_read_before_the_worker_and_a_move_sends_plain_text() -> None:
    journal = Journal(tags=TAGS, options=TextOptions())
    sent = [
        *journal.sent(Text(session="s", text="<think>a")),
        *journal.sent(Text(session="s", text="b</think>**One** [two](x")),
    ]
    assert [command.text for command in sent if isinstance(command, Text)] == ["", "One two"]
    assert journal.text_chars == len("<think>ab</think>**One** [two](x")
    _, commands = Journal.restored(journal.record()).move()
    assert "".join(command.text for command in commands if isinstance(command, Text)) == "One two"


def test_a_move_within_slow_words_goes_on_slowly() -> None:
    journal = Journal(tags=TAGS, options=TextOptions())
    (plain,) = journal.sent(Text(session="s", text='One. <prosody rate="slow">Two. Three. Four.</prosody>'))
    assert isinstance(plain, Text)
    splitter = TextSplitter(tags=TAGS)
    splitter.push(plain.text[: plain.text.index("our.")])
    for expected in (1.0, 0.8):
        chunk = splitter.next_chunk(eager=True)
        assert chunk is not None
        journal.received(
            Begun(
                session="s",
                generation=0,
                text=chunk.source,
                start_char=chunk.start,
                end_char=chunk.end,
                start_sample=0,
            )
        )
        journal.received(Segment(session="s", generation=0, text=chunk.text, start_sample=0, end_sample=0))
        restored = Journal.restored(journal.record())
        assert restored.move()[0].rate == expected
    resumption, commands = journal.move()
    rest = TextSplitter(tags=TAGS, begun=True, rate=resumption.rate)
    rest.push("".join(command.text for command in commands if isinstance(command, Text)))
    rest.close()
    chunk = rest.next_chunk(eager=True)
    assert chunk is not None and marks.rate_of(chunk.source) == 0.8
