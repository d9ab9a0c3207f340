"""From a manuscript to the script: no word is lost, no breath is too long, every gap is what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import ManuscriptUnfit
from app.narration.manuscript import Block, compose
from app.narration.models import Manuscript, NarrationOptions, Pauses, Script, ScriptSegment
from app.narration.script import BATCH_CHARS, MAX_SPOKEN_CHARS, MAX_WRITTEN_CHARS, Draft
from app.speech.text import clean, has_speech

TAGS = ("<laugh>", "<sigh>")
SENTENCE = "The lamp burned low, and nobody came to the door that night. "


def of(*texts: str, titles: bool = False) -> Manuscript:
    """One chapter of paragraphs; with `titles`, a chapter of each."""
    blocks = [b for n, t in enumerate(texts, 1) for b in (Block("heading", f"Chapter {n}", 1), Block("text", t))]
    return compose([b for b in blocks if titles or b.kind == "text"], name="book.txt")


def script(
    manuscript: Manuscript, read: Callable[[str], str | None] = lambda sentence: sentence, **options: Any
) -> Script:
    draft = Draft(manuscript, NarrationOptions.model_validate(options), tags=TAGS)
    while unread := draft.unread:
        draft.take({sentence: read(sentence) for sentence in unread})
    return draft.script(language="en")


def segments(made: Script) -> list[ScriptSegment]:
    return [segment for chapter in made.chapters for segment in chapter.segments]


def spoken(*texts: str, **options: Any) -> list[str]:
    return [segment.spoken for segment in segments(script(of(*texts), **options))]


def gaps(manuscript: Manuscript, **pauses: float) -> list[float]:
    made = script(manuscript, pauses=Pauses(**pauses), read_titles=True)
    return [segment.gap_s for segment in segments(made)]


def letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


# Nothing is lost

ANY_TEXT = st.one_of(
    st.text(max_size=3000),
    st.lists(
        st.sampled_from(
            [
                "word",
                "Mr.",
                "Stop.",
                "“Why?”",
                "x" * 700,
                "<laugh>",
                "<b>",
                "…",
                "***",
                "12,345",
                "日本語。",
                "é́́",
                "\n",
                "[hero]",
            ]
        ),
        max_size=300,
    ).map(" ".join),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ANY_TEXT, min_size=1, max_size=4), st.booleans())
@example(["<LAUGH>: " + "0" * 330], False)
@example(["x" * 300 + " <laugh>", "<laugh> " * 100], True)
def test_every_letter_of_the_manuscript_is_in_the_segments_in_order(texts: list[str], alone: bool) -> None:
    try:
        manuscript = compose([Block("text", text) for text in texts], name="book.txt")
        made = segments(script(manuscript, pauses=Pauses(sentence_s=0.5 if alone else None)))
    except ManuscriptUnfit:
        return
    paragraphs = [clean(p.text, tags=TAGS) for chapter in manuscript.chapters for p in chapter.paragraphs]
    assert letters("".join(segment.written for segment in made)) == letters("".join(paragraphs))
    assert letters("".join(segment.spoken for segment in made)) == letters("".join(paragraphs))
    assert [segment.number for segment in made] == list(range(1, len(made) + 1))
    assert all(len(segment.written) <= MAX_WRITTEN_CHARS and has_speech(segment.spoken) for segment in made)


@settings(max_examples=50, deadline=None)
@given(ANY_TEXT, st.integers(1, 40))
def test_words_that_grow_when_they_are_read_are_cut_and_none_is_lost(text: str, growth: int) -> None:
    try:
        manuscript = of(text)
        made = segments(script(manuscript, lambda sentence: " ".join(sentence.split() * growth)))
    except ManuscriptUnfit:
        return
    paragraphs = [clean(p.text, tags=TAGS) for p in manuscript.chapters[0].paragraphs]
    assert letters("".join(segment.written for segment in made)) == letters("".join(paragraphs))
    assert all(len(segment.spoken) <= MAX_SPOKEN_CHARS for segment in made)


def test_a_book_is_counted_sentence_by_sentence() -> None:
    sentences = [f"This is sentence number {n}, and it is told only once." for n in range(500)]
    made = script(of(" ".join(sentences[:250]), " ".join(sentences[250:])))
    assert " ".join(segment.written for segment in segments(made)) == " ".join(sentences)
    assert " ".join(segment.spoken for segment in segments(made)) == " ".join(sentences)


# Breaths


def test_sentences_of_a_paragraph_are_batched_up_to_a_breath() -> None:
    made = spoken(SENTENCE * 10)
    assert [breath.count("lamp") for breath in made] == [3, 3, 3, 1]
    assert all(len(breath) <= BATCH_CHARS for breath in made)


def test_paragraphs_are_not_batched() -> None:
    assert spoken("One.", "Two.") == ["One.", "Two."]


def test_a_last_breath_that_would_be_very_short_takes_a_sentence_along() -> None:
    last = "But then it did, and all was well again."
    assert spoken(SENTENCE * 4 + last) == [(SENTENCE * 3).strip(), SENTENCE + last]


def test_a_long_sentence_is_cut_at_its_clauses_without_a_word_about_it() -> None:
    made = script(of("and then the lamp burned low, " * 40))
    assert all(segment.written.endswith(",") for segment in segments(made)[:-1])
    assert not made.findings


@pytest.mark.parametrize("text", ["word " * 4000, "w" * 20_000])
def test_twenty_thousand_characters_without_punctuation_are_cut_and_told_once(text: str) -> None:
    made = script(of("One.", text + ". The end."))
    assert letters("".join(segment.written for segment in segments(made))) == letters("One" + text + "The end")
    (finding,) = made.findings
    assert (finding.code, finding.chapter, finding.segment) == ("long_sentence", 1, 2)
    assert finding.message.startswith("'w")


def test_ornaments_are_no_segments_and_go_with_a_neighbour_inside_a_paragraph() -> None:
    assert spoken("***", "One. … * Two.", "---") == ["One. … * Two."]


def test_a_tag_goes_with_the_words_beside_it() -> None:
    assert spoken("<laugh> One. <sigh> Two. <laugh>", pauses=Pauses(sentence_s=1)) == [
        "<laugh> One.",
        "<sigh> Two. <laugh>",
    ]


def test_a_tag_that_the_voice_does_not_know_is_not_spoken() -> None:
    assert spoken("One <whistle> two.") == ["One two."]


# Reading


def test_a_sentence_is_asked_for_once_however_often_it_occurs() -> None:
    draft = Draft(of("Yes. Yes.", "Yes. No."), NarrationOptions(), tags=TAGS)
    assert draft.unread == ["Yes.", "No."]


def test_what_is_read_is_spoken_and_what_was_written_is_kept() -> None:
    (segment,) = segments(script(of("I paid $5."), lambda _: "I paid five dollars."))
    assert (segment.written, segment.spoken) == ("I paid $5.", "I paid five dollars.")


def test_a_sentence_that_cannot_be_read_is_spoken_as_written_and_told() -> None:
    made = script(of("One.", "I paid $5."), lambda sentence: None if "$" in sentence else sentence)
    assert segments(made)[1].spoken == "I paid $5."
    (finding,) = made.findings
    assert (finding.code, finding.segment) == ("unread", 2)


def test_a_script_is_not_made_before_all_is_read() -> None:
    with pytest.raises(ValueError, match="1 sentences are unread"):
        Draft(of("One."), NarrationOptions()).script()


@pytest.mark.parametrize(
    ("text", "replacements", "heard"),
    [
        ("Caius, CAIUS and Caiuses.", {"caius": "Keys"}, "Keys, Keys and Caiuses."),
        ("New York and York.", {"York": "Jork", "New York": "Nu Jork"}, "Nu Jork and Jork."),
        ("C++ & C.", {"C++": "see plus plus", "&": "and"}, "see plus plus and C."),
        ("Oh <laugh> laugh.", {"laugh": "giggle"}, "Oh <laugh> giggle."),
        ("Dr. Who.", {"dr.": "Doctor"}, "Doctor Who."),
        ("a b", {"a": "b", "b": "a"}, "b a"),
        ("Don’t, don't.", {"don't": "do not"}, "do not, do not."),
        ("İstanbul, İSTANBUL.", {"İstanbul": "Constantinople"}, "Constantinople, Constantinople."),
        ("रामी राम की", {"राम": "Ram"}, "रामी Ram की"),
        ("कीराम", {"राम": "Ram"}, "कीराम"),
        ("Rene\u0301e", {"rene\u0301e": "Wren"}, "Wren"),
    ],
)  # fmt: skip
def test_whole_words_are_replaced_in_any_case(text: str, replacements: dict[str, str], heard: str) -> None:
    assert spoken(text, replacements=replacements) == [heard]


@pytest.mark.parametrize("twice", [("NASA", "nasa"), ("don't", "Don’t"), ("é", "e\u0301")])
def test_a_word_that_is_replaced_twice_is_refused(twice: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="are the same word"):
        NarrationOptions(replacements=dict.fromkeys(twice, "x"))


def test_what_is_replaced_by_nothing_is_told_and_no_segment() -> None:
    made = script(of("Hush.", "One."), replacements={"hush": ""})
    assert [segment.written for segment in segments(made)] == ["One."]
    assert [finding.code for finding in made.findings] == ["unspoken"]


def test_respellings_are_cleaned_as_all_text_is() -> None:
    assert spoken("One two.", replacements={"one": "\x00won<b>"}) == ["won two."]


# Titles and pauses


def test_titles_are_spoken_by_the_narrator_unless_unwanted() -> None:
    manuscript = of("[hero]\nHello.", "Bye.", titles=True)
    first = script(manuscript).chapters[0]
    assert [(segment.character, segment.spoken) for segment in first.segments] == [
        ("narrator", "Chapter 1"),
        ("hero", "Hello."),
    ]
    silent = script(manuscript, read_titles=False)
    assert [s.spoken for s in segments(silent)] == ["Hello.", "Bye."]
    assert [chapter.title for chapter in silent.chapters] == ["Chapter 1", "Chapter 2"]


def test_a_title_in_capitals_is_spoken_like_others() -> None:
    blocks = [Block("heading", "CHAPTER IV. THE STORM", 1), Block("text", "It blew.")]
    first = segments(script(compose(blocks, name="book.txt")))[0]
    assert (first.written, first.spoken) == ("CHAPTER IV. THE STORM", "Chapter IV. The Storm")


def test_every_gap_is_that_of_its_place_and_the_last_is_none() -> None:
    manuscript = compose(
        [
            Block("heading", "One", 1), Block("text", SENTENCE * 6), Block("text", "Here."),
            Block("heading", "Two", 1), Block("text", "There."),
        ],
        name="book.txt",
    )  # fmt: skip
    pauses = {"segment_s": 0.1, "paragraph_s": 0.2, "title_s": 0.3, "chapter_s": 0.4}
    assert gaps(manuscript, **pauses) == [0.3, 0.1, 0.2, 0.4, 0.3, 0.0]


def test_sentences_stand_alone_where_their_pause_is_set() -> None:
    assert gaps(of("One. Two. Three.", "Four."), sentence_s=1.5, paragraph_s=3.0) == [1.5, 1.5, 3.0, 0.0]


def test_a_break_replaces_the_gap_it_stands_at() -> None:
    manuscript = of('One. <break time="5s"/> Two. <break time="0s"/>', "Three.")
    assert gaps(manuscript, paragraph_s=1.0) == [5.0, 0.0, 0.0]


def test_a_break_behind_a_title_replaces_its_pause() -> None:
    assert gaps(of('<break time="5s"/> One.', "Two.", titles=True), chapter_s=2.0, title_s=1.0) == [5.0, 2.0, 1.0, 0.0]


def test_a_break_before_a_chapters_first_words_is_the_gap_behind_the_chapter_before() -> None:
    manuscript = of(
        "One.", '<break time="5s"/> Two.', 'Three. <break time="2s"/>', '<break time="3s"/> Four.', titles=True
    )
    made = script(manuscript, read_titles=False)
    assert [segment.gap_s for segment in segments(made)] == [5.0, 2.0, 5.0, 0.0]
    assert not made.findings


@pytest.mark.parametrize("text", ['<break time="5s"/> One.', 'One. <break time="5s"/>'])
def test_a_break_with_nothing_to_stand_between_is_told(text: str) -> None:
    made = script(of(text))
    assert [segment.gap_s for segment in segments(made)] == [0.0]
    (finding,) = made.findings
    assert (finding.code, finding.severity, finding.chapter) == ("lost_break", "left_out", 1)


def test_options_name_the_book_before_the_manuscript_does() -> None:
    manuscript = of("One.").model_copy(update={"title": "Written", "author": "Ann"})
    made = script(manuscript, title="Given")
    assert (made.title, made.author, made.language) == ("Given", "Ann", "en")


def test_a_voice_says_its_own_words_its_way_and_the_others_theirs() -> None:
    manuscript = of("A GIF of SQL.", "[hero] A GIF of SQL.")
    options = NarrationOptions(
        replacements={"GIF": "jif", "SQL": "sequel"}, voice_replacements={"wren": {"gif": "ghif"}, "rms": {"A": "An"}}
    )
    draft = Draft(
        manuscript, options, tags=TAGS, voice_of=lambda character, _: "wren" if character == "hero" else "slt"
    )
    draft.take({sentence: sentence for sentence in draft.unread})
    assert [segment.spoken for segment in segments(draft.script())] == ["A jif of sequel.", "A ghif of sequel."]
