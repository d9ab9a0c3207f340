"""Cleaning and splitting: what each character becomes, where each chunk ends, and that pieces leave no trace."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import ConfigurationError, TextAfterEnd
from app.speech.text import ORPHEUS_TAGS, Chunk, Cleaner, Cut, TextSplitter, clean, has_speech, joins_previous, marks

MANY_WORDS = "and so the road went on and on past the mill the farm and the old stone bridge "


def chunks_of(splitter: TextSplitter, *, eager: bool = True) -> list[Chunk]:
    found = []
    while chunk := splitter.next_chunk(eager=eager):
        found.append(chunk)
    return found


def spoken(text: str, *, max_chunk_chars: int = 300) -> list[str]:
    """The chunks of a text that arrives whole and ends there."""
    splitter = TextSplitter(max_chunk_chars=max_chunk_chars)
    splitter.push(text)
    splitter.close()
    return [chunk.text for chunk in chunks_of(splitter)]


def first_of(text: str) -> Chunk | None:
    """The first chunk while more text may come, audio being needed at once."""
    splitter = TextSplitter()
    splitter.push(text + "~")  # the splitter holds one character back for a combining mark
    return splitter.next_chunk(eager=True)


def polled(pieces: Iterable[str], *, eager: bool) -> list[Chunk]:
    """The chunks of pieces when the caller takes them after each."""
    splitter = TextSplitter()
    found = []
    for piece in pieces:
        splitter.push(piece)
        found += chunks_of(splitter, eager=eager)
    splitter.close()
    return found + chunks_of(splitter, eager=eager)


def cut_up(text: str, cuts: list[int]) -> list[str]:
    at = [0, *sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]
    return [text[a:b] for a, b in pairwise(at)]


# Cleaning


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [
        ("  Hello,\t\r\n world  ", "Hello, world"),
        ("One.\n\n  Two.", "One.\nTwo."),
        ("One.\n \n\n\nTwo.\u2029Three.", "One.\nTwo.\nThree."),
        ("cafe\u0301 A\u030a", "caf\u00e9 \u00c5"),
        ("\u1112\u1161\u11ab", "\ud55c"),
        ("a\x00b\x1b[0m\x7f", "ab[0m"),
        ("zero\u200bwidth\ufeff soft\u00adhyphen \u202eback", "zerowidth softhyphen back"),
        ("half \ud83d a pair", "half \ufffd a pair"),
        ("fine \U0001f600 \u65e5\u672c\u8a9e \u0939\u093f\u0928\u094d\u0926\u0940", None),
        ("<Laugh> yes <SIGH>", "<laugh> yes <sigh>"),
        ("a <b>bold</b> word<br/>", "a bold word"),
        ("</laugh> 3 < 4 <- <a href='x'>", "3 < 4 <- <a href='x'>"),
        ("<nosuchtagatall> stays", "<nosuchtagatall> stays"),
        ("<lau", "<lau"),
        ("   \n\n ", ""),
        ("", ""),
    ],
)
def test_each_kind_of_character_is_cleaned_as_documented(dirty: str, cleaned: str | None) -> None:
    assert clean(dirty) == (dirty if cleaned is None else cleaned)


def test_a_letter_keeps_thirty_combining_marks_and_no_more() -> None:
    assert clean("x" + "\u0316" * 1000 + "y") == "x" + "\u0316" * 30 + "y"


def test_text_may_be_normalised_in_parts_before_every_character_that_joins_nothing() -> None:
    decomposed = {
        char: unicodedata.normalize("NFD", char)
        for char in map(chr, range(sys.maxunicode + 1))
        if unicodedata.decomposition(char) and not unicodedata.decomposition(char).startswith("<")
    }
    composed_of = {part for parts in decomposed.values() for part in parts[1:]}
    starters = [char for char in map(chr, range(sys.maxunicode + 1)) if not joins_previous(char)]
    assert not [char for char in starters if unicodedata.combining(char)]
    assert not composed_of & {decomposed.get(char, char)[0] for char in starters}


def test_tags_are_those_of_the_checkpoint() -> None:
    assert clean("<clap> <laugh>", tags=("<clap>",)) == "<clap>"
    assert clean("<laugh> hi", tags=()) == "hi"


def test_a_tag_of_another_shape_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="'laugh'"):
        Cleaner(("laugh",))


@pytest.mark.parametrize(
    ("text", "speech"),
    [("Hi", True), ("7", True), ("\u0928", True), ("<laugh>", True), ("... \u2014 !?", False), ("\U0001f600", False)],
)
def test_speech_is_a_letter_a_digit_or_a_tag(text: str, speech: bool) -> None:
    assert has_speech(text) is speech


# The first chunk


@pytest.mark.parametrize(
    ("text", "first", "cut"),
    [
        ("Hello there. How", "Hello there.", Cut.SENTENCE),
        ("Really?! Yes", "Really?!", Cut.SENTENCE),
        ('"Stop." Then', '"Stop."', Cut.SENTENCE),
        ("(Not now.) Later", "(Not now.)", Cut.SENTENCE),
        ("A title\n\nText", "A title", Cut.PARAGRAPH),
        ("\u4f60\u597d\u3002\u5f88\u597d", "\u4f60\u597d\u3002", Cut.SENTENCE),
        ("\u300c\u672c\u5f53\uff1f\uff01\u300d\u305d", "\u300c\u672c\u5f53\uff1f\uff01\u300d", Cut.SENTENCE),
        ("If you ask me nicely, I", "If you ask me nicely,", Cut.CLAUSE),
        ("We waited and waited \u2014 no", "We waited and waited \u2014", Cut.CLAUSE),
        ("Well, you know, the thing I mean is... this", "Well, you know, the thing I mean is...", Cut.CLAUSE),
        (MANY_WORDS, "and so the road went on and on past the mill the", Cut.WORDS),
    ],
)
def test_the_first_chunk_ends_at_the_earliest_good_place(text: str, first: str, cut: Cut) -> None:
    chunk = first_of(text)
    assert chunk is not None
    assert (chunk.text, chunk.start, chunk.end, chunk.cut) == (first, 0, len(first), cut)


@pytest.mark.parametrize(
    "text",
    [
        "Hello there.",  # the next character may be a digit
        "It costs $29.",
        "Well, no",  # too short a clause
        "I met Mr. Smith and Dr. Who",
        "Some fruit, e.g. Apples",
        "She lives in the U.S. Army base",
        "At 10 a.m. we left",
        "J. R. R. Tolkien",
        "Turn to No. 5",
        "On Jan. 5",
        "Pi is 3.14 or 1,000 at 10:30",
        "See www.example.com/a.b?c=d!e and me@example.com now",
        "1. First",
        "The plan: 1. Call",
        '"Really?" he said',
        "Wait... what",
        "... \u2014 !? ",
    ],
)
def test_no_sentence_is_seen_where_there_is_none(text: str) -> None:
    assert first_of(text) is None


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("No. I will not", "No."),
        ("It costs $29. Next", "It costs $29."),
        ("It was I. Then", "It was I."),
        ("We left at 10 a.m. The", "We left at 10 a.m."),
        ("In 1999. Then", "In 1999."),
        ("Go to example.com. Then", "Go to example.com."),
        ("Yes! okay", "Yes!"),
        ("hello. how", "hello."),
        ("Wait... What", "Wait..."),
        ("**Bold.** Next", "**Bold.**"),
        ("Wait . What", "Wait ."),
        (". What now? Then", ". What now?"),
    ],
)
def test_a_sentence_is_seen_beside_its_lookalikes(text: str, first: str) -> None:
    chunk = first_of(text)
    assert chunk is not None
    assert chunk.text == first


# Text that stops coming


def idle_chunk(text: str) -> Chunk | None:
    splitter = TextSplitter()
    splitter.push(text)
    assert splitter.next_chunk(eager=True) is None
    splitter.idle()
    return splitter.next_chunk(eager=True)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Let me think ", "Let me think"),
        ("Let me think abo", "Let me think"),
        ("Sure.", "Sure."),
        ("One moment, please", None),  # "please" may be the half of a longer word
        ("One moment, please ", "One moment, please"),
        ("Yes ", None),
        ("It is 3.", None),
        ("I just saw Mr.", "I just saw"),
        ("I know that <sigh>", "I know that"),
        ("<laugh>", None),
    ],
)
def test_idle_text_is_spoken_from_three_whole_words_or_a_sentence(text: str, first: str | None) -> None:
    chunk = idle_chunk(text)
    assert (chunk and chunk.text) == first
    assert chunk is None or chunk.cut is Cut.IDLE


def test_idleness_ends_with_the_next_piece() -> None:
    splitter = TextSplitter()
    splitter.push("Let me")
    splitter.idle()
    splitter.push(" think ")
    assert splitter.next_chunk(eager=True) is None


def test_idle_text_waits_while_there_is_audio_to_play() -> None:
    splitter = TextSplitter()
    splitter.push("Let me think ")
    splitter.idle()
    assert splitter.next_chunk(eager=False) is None


# Later chunks


def after_the_first(text: str) -> TextSplitter:
    splitter = TextSplitter()
    splitter.push("Hello. " + text + "~")
    assert splitter.next_chunk(eager=True) == Chunk("Hello.", 0, 6, Cut.SENTENCE)
    return splitter


def test_a_later_chunk_takes_every_whole_sentence_that_is_there() -> None:
    splitter = after_the_first("This is two. This is three! And four")
    assert [chunk.text for chunk in chunks_of(splitter)] == ["This is two. This is three!"]


def test_a_later_chunk_falls_back_to_the_longest_clause_then_to_words() -> None:
    clause = after_the_first("If you ask me nicely, and if there is time, I").next_chunk(eager=True)
    words = after_the_first(MANY_WORDS).next_chunk(eager=True)
    assert clause is not None and clause.text == "If you ask me nicely, and if there is time,"
    assert words is not None and words.text == MANY_WORDS.removesuffix(" bridge ")


def test_nothing_short_of_a_full_batch_is_cut_while_there_is_audio_to_play() -> None:
    splitter = after_the_first("This is two. This is three! And four")
    assert splitter.next_chunk(eager=False) is None
    splitter.push(" is a long one." + 20 * " More of the same.")
    batch = splitter.next_chunk(eager=False)
    assert batch is not None and batch.cut is Cut.SENTENCE
    assert 260 < len(batch.text) <= 280


def test_a_whole_text_is_cut_in_batches_of_sentences() -> None:
    sentences = [f"This is sentence number {n} of the text." for n in range(30)]
    chunks = spoken(" ".join(sentences))
    assert all(200 < len(chunk) <= 280 and chunk.endswith("text.") for chunk in chunks[:-1])
    assert " ".join(chunks) == " ".join(sentences)


# Flush and close


def test_a_flush_makes_everything_ready_and_no_chunk_crosses_it() -> None:
    splitter = TextSplitter()
    splitter.push("One two")
    end = splitter.flush()
    splitter.push(" three four. Five")
    first, second = chunks_of(splitter)
    assert first == Chunk("One two", 0, end, Cut.FLUSH)
    assert (second.text, second.cut) == ("three four.", Cut.SENTENCE)


def test_the_chunk_after_a_flush_starts_early_again() -> None:
    splitter = TextSplitter()
    splitter.push("One.")
    splitter.flush()
    splitter.push(" Two. Three. Four")
    assert [chunk.text for chunk in chunks_of(splitter)] == ["One.", "Two.", "Three."]


def test_a_flush_of_nothing_is_no_chunk() -> None:
    splitter = TextSplitter()
    assert splitter.flush() == 0
    splitter.push("  \x00 \u200b")
    assert splitter.flush() == 0
    assert chunks_of(splitter) == []


def test_flush_then_close_is_one_end() -> None:
    splitter = TextSplitter()
    splitter.push("Hello")
    assert splitter.flush() == splitter.close() == 5
    assert [chunk.cut for chunk in chunks_of(splitter)] == [Cut.FLUSH]


def test_text_after_the_close_is_refused() -> None:
    splitter = TextSplitter()
    splitter.close()
    with pytest.raises(TextAfterEnd):
        splitter.push("more")


# Tags


def test_a_lone_tag_waits_for_the_words_after_it() -> None:
    splitter = TextSplitter()
    splitter.push("<laugh> ")
    assert splitter.next_chunk(eager=True) is None
    splitter.push("That is funny. Next")
    chunk = splitter.next_chunk(eager=True)
    assert chunk is not None and chunk.text == "<laugh> That is funny."


def test_a_lone_tag_is_spoken_when_the_text_ends() -> None:
    assert spoken("<laugh>") == ["<laugh>"]


def test_a_tag_after_a_sentence_goes_with_the_next_one() -> None:
    splitter = TextSplitter()
    splitter.push("That is sad. <sigh> But life goes on. And")
    assert [chunk.text for chunk in chunks_of(splitter)] == ["That is sad.", "<sigh> But life goes on."]


def test_a_tag_is_held_until_it_is_whole() -> None:
    splitter = TextSplitter()
    splitter.push("That is sad. <si")
    assert splitter.next_chunk(eager=True) is None
    splitter.push("gh> But")
    assert splitter.next_chunk(eager=True) == Chunk("That is sad.", 0, 12, Cut.SENTENCE)


@given(st.lists(st.sampled_from([*ORPHEUS_TAGS, "word", "x" * 90, "<laugh><sigh>"]), min_size=1, max_size=60))
@example(["<laugh>"] * 60)
@example(["<laugh>", "x" * 500])
def test_no_cut_falls_in_a_tag_or_leaves_it_behind(words: list[str]) -> None:
    chunks = polled(" ".join(words), eager=True)
    for chunk in chunks:
        assert chunk.text.count("<") == chunk.text.count(">")
    for chunk in chunks[:-1]:
        assert not ("x" in chunk.text or "word" in chunk.text) or not chunk.text.endswith(">")


# Long and hostile text


def test_a_long_text_without_punctuation_is_cut_between_words() -> None:
    text = " ".join(["word"] * 4000)
    chunks = spoken(text)
    assert " ".join(chunks) == text
    assert {len(chunk) for chunk in chunks[:-1]} == {299}


def test_a_long_word_is_cut_anywhere_but_within_a_letter() -> None:
    letters = "e\u0316\u0317" * 2000
    chunks = spoken(letters)
    assert "".join(chunks) == letters
    assert all(len(chunk) <= 300 and chunk[0] == "e" for chunk in chunks)


def test_a_reading_is_never_cut_however_long_it_is() -> None:
    reading = marks.reading_mark("as it is written " * 20, "as it is spoken " * 20)
    splitter = TextSplitter(max_chunk_chars=50)
    splitter.push(f"Before it. {reading[:70]}")
    assert [chunk.text for chunk in chunks_of(splitter)] == ["Before it."]
    splitter.idle()
    assert not chunks_of(splitter)
    splitter.push(f"{reading[70:]} and after it.")
    splitter.close()
    assert [chunk.text for chunk in chunks_of(splitter)] == [clean(reading), "and after it."]


def test_the_longest_chunk_is_a_parameter_with_a_floor() -> None:
    assert max(map(len, spoken(MANY_WORDS * 4, max_chunk_chars=60))) <= 60
    with pytest.raises(ConfigurationError, match="is 10; it must be at least"):
        TextSplitter(max_chunk_chars=10)


HOSTILE = st.text(
    st.one_of(
        st.sampled_from(' .,!?\n"<>…。！abcABC12\u0301\u200b\u1161\ud83d\t—'),
        st.characters(exclude_categories=()),
    ),
    max_size=400,
)
PROSE = st.lists(
    st.sampled_from(
        ["Hello", "there.", "Mr.", "<laugh>", "<b>", "3.14", "e.g.", "however,", "the", "a", "end!", "\n\n", "x" * 120]
    ),
    max_size=120,
).map(" ".join)


@given(st.one_of(HOSTILE, PROSE), st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
@example("A" * 299 + " B", [299, 300], False)
@example("A" * 280 + ". B", [280, 281, 282], False)
def test_pieces_of_any_size_make_the_same_chunks_at_the_end(text: str, cuts: list[int], eager: bool) -> None:
    whole, pieces = TextSplitter(), TextSplitter()
    whole.push(text)
    for piece in cut_up(text, cuts):
        pieces.push(piece)
    for splitter in (whole, pieces):
        splitter.close()
    assert chunks_of(pieces, eager=eager) == chunks_of(whole, eager=eager)


@given(st.one_of(HOSTILE, PROSE), st.lists(st.integers(0, 10_000), max_size=12))
def test_a_caller_with_audio_to_play_gets_the_same_chunks_however_often_it_asks(text: str, cuts: list[int]) -> None:
    assert polled(cut_up(text, cuts), eager=False) == polled(text, eager=False)


@given(st.one_of(HOSTILE, PROSE), st.lists(st.integers(0, 10_000), max_size=12))
def test_the_first_chunk_is_the_same_however_often_a_hungry_caller_asks(text: str, cuts: list[int]) -> None:
    def first(pieces: Iterable[str]) -> Chunk | None:
        splitter = TextSplitter()
        for piece in pieces:
            splitter.push(piece)
            if chunk := splitter.next_chunk(eager=True):
                return chunk
        return None

    assert first(cut_up(text, cuts)) == first(text)


@given(st.one_of(HOSTILE, PROSE), st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
def test_the_chunks_are_the_cleaned_text_and_their_offsets_say_where(text: str, cuts: list[int], eager: bool) -> None:
    cleaned = clean(text)
    chunks = polled(cut_up(text, cuts), eager=eager)
    assert "".join("".join(chunk.text for chunk in chunks).split()) == "".join(cleaned.split())
    for chunk in chunks:
        assert chunk.text == cleaned[chunk.start : chunk.end].replace("\n", " ")
        assert 0 < len(chunk.text) <= 300
        assert chunk.text == chunk.text.strip()


@given(HOSTILE, st.lists(st.sampled_from(["push", "idle", "flush", "take", "take eagerly"]), max_size=40))
def test_any_order_of_calls_loses_nothing(text: str, calls: list[str]) -> None:
    splitter = TextSplitter()
    given_out, at = "", 0
    for call in calls:
        if call == "push":
            splitter.push(text[at : at + 7])
            at += 7
        elif call == "idle":
            splitter.idle()
        elif call == "flush":
            splitter.flush()
        else:
            given_out += "".join(chunk.text for chunk in chunks_of(splitter, eager=call == "take eagerly"))
    splitter.close()
    given_out += "".join(chunk.text for chunk in chunks_of(splitter))
    letters = [char for char in unicodedata.normalize("NFD", clean(text[:at])) if char.isalnum()]
    assert [char for char in unicodedata.normalize("NFD", given_out) if char.isalnum()] == letters
    assert splitter.pending_chars == 0
